#pragma once

#include <covey/client/local_data.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace covey::client {

struct StreamOptions {
  enum class Keep : std::uint8_t {
    kWindow,     ///< the last ones
    kReservoir,  ///< a uniform sample of all that ever came (Vitter 1985, Algorithm R)
  };
  enum class Element : std::uint8_t {
    kFloat,
    kByte,  ///< values in [0, 1], kept in steps of 1/255: a quarter of the memory
  };
  std::string directory = {};             ///< of its file; "": forgotten when the process ends
  std::vector<std::uint32_t> shape = {};  ///< of an example; empty: that of the first one, flat
  std::uint32_t classes = 0;              ///< 0: the largest label that came + 1
  Keep keep = Keep::kWindow;
  Element element = Element::kFloat;
  std::uint64_t max_examples = 10'000;  ///< kept
  std::uint64_t max_bytes = std::uint64_t{64}
                            << 20;  ///< of the kept ones in memory; on disk about twice
  /// Train only on what came since the last update that was counted.
  bool only_new = false;
  /// With only_new: for every new example so many older ones of those kept, drawn at random, so
  /// that what was learnt is not forgotten (experience replay). A reservoir then has half of the
  /// room, what is new the other.
  double replay = 0;
  std::uint64_t min_examples = 1;  ///< fewer are nothing to train on
  std::uint64_t seed = 1;          ///< of the reservoir and of replay
  /// Told what was wrong with the file: a torn end that was cut, a broken file that was put aside.
  std::function<void(std::string_view)> on_notice = nullptr;
};

/// Examples that keep coming, of which a bounded number is kept, in memory and on disk. `examples`
/// is a copy, so adding goes on while a training uses it. Thread-safe.
class ExampleStream : public LocalData {
 public:
  /// Error for options that contradict each other or the file that is there, and for a directory
  /// that cannot be written to.
  static Result<std::unique_ptr<ExampleStream>> open(StreamOptions options);
  ~ExampleStream() override;

  /// Error for a wrong number of features, one that is not finite (kByte: not in [0, 1]), a label
  /// outside the classes, or a disk that is full; the example is not added then.
  Result<void> add(std::span<const float> features, std::int32_t label);
  /// kByte only: a feature's value is byte / 255.
  Result<void> add_bytes(std::span<const std::uint8_t> features, std::int32_t label);
  /// Adds the rows of a table (models::CsvExamples) and removes the file; a row that an earlier
  /// call took before the process died is not taken twice. `label`: its column.
  Result<void> take_csv(const std::string& path, const std::string& label,
                        const std::vector<std::string>& classes);
  /// Forgets all examples, on disk too.
  Result<void> clear();
  /// On disk for good, even if power fails. Without it the last seconds may be lost.
  Result<void> sync();

  std::uint64_t seen() const;  ///< examples that ever came
  std::uint64_t kept() const;  ///< examples in memory

  Result<std::shared_ptr<const models::DataSet>> examples() override;
  std::uint64_t num_examples() override;
  void update_made(const std::shared_ptr<const models::DataSet>& examples, RunId run,
                   RoundNumber round) override;
  void update_counted(RunId run, RoundNumber round) override;

 private:
  class Store;
  explicit ExampleStream(std::unique_ptr<Store> store);
  std::unique_ptr<Store> store_;
};

}  // namespace covey::client
