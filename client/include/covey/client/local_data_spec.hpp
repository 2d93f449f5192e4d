#pragma once

#include <covey/client/example_stream.hpp>
#include <covey/client/local_data.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

/// Where a device's examples come from, in words.
namespace covey::client {

/// KIND:PATH[,key=value]...
///
///   csv:FILE         a table with a header line and numeric features. label=COLUMN (or label= for
///   none; "label"),
///                    classes=NAME|NAME|... in the model's order where labels are names
///   idx:DIRECTORY    MNIST's training files (train-images-idx3-ubyte, train-labels-idx1-ubyte,
///   also .gz) idx:STEM         STEM-images-idx3-ubyte and STEM-labels-idx1-ubyte, also .gz.
///   classes=N directory:DIR    either a sub-folder for each class with 8-bit binary PGM or PPM
///   images of one size (classes in
///                    alphabetical order, or classes=NAME|...: then sub-folders may be missing), or
///                    *.csv tables with the same columns (label=, classes= as for csv)
///   stream:DIR       examples that keep coming, kept in DIR: added by the host application, or as
///   tables that appear
///                    as DIR/inbox/*.csv (move them in; each is removed once its rows were taken).
///                    keep=window or keep=reservoir, max-examples=N, only-new=yes, replay=SHARE,
///                    min-examples=N, element=float or element=byte, shape=HxWxC, classes=N or
///                    classes=NAME|..., label=COLUMN, seed=N
///
/// All: max-bytes=N[KMG], the memory that examples may take.
struct LocalDataSpec {
  enum class Kind : std::uint8_t { kCsv, kIdx, kDirectory, kStream };
  Kind kind = Kind::kCsv;
  std::string path;
  std::string label = "label";           ///< column of tables; "": none
  std::vector<std::string> class_names;  ///< in the model's order
  std::uint32_t num_classes = 0;         ///< 0: as many as class_names, or as labels show
  std::uint64_t max_bytes = 0;  ///< 0: 256 MiB of a file, of a stream what StreamOptions says
  /// kStream: all but directory, classes and max_bytes, which are above.
  StreamOptions stream = {};
};

/// Error naming the part of the text that is wrong, and what would do.
Result<LocalDataSpec> parse_local_data(std::string_view text);

/// Files are looked at when examples are asked for: what changed on disk is read again, what a
/// training holds stays as it is. Between trainings nothing of a file lies in memory. `on_notice`
/// is told what is wrong with data while nobody asks for examples; any thread. Error where nothing
/// of that kind can ever come from there. A stream whose path is "" lies in memory only.
Result<std::unique_ptr<LocalData>> open_local_data(
    const LocalDataSpec& spec, std::function<void(std::string_view)> on_notice = {});

/// The stream behind what open_local_data opened, to add examples to; nullptr for other kinds.
ExampleStream* stream_of(LocalData& data);

}  // namespace covey::client
