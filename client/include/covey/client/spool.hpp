#pragma once

#include <chrono>
#include <covey/client/saved_work.hpp>
#include <covey/client/spool_record.hpp>
#include <covey/client/state_folder.hpp>
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

/// One moment on both clocks: the steady one of this process, and the one on the wall, by which
/// alone a moment can be told to a later process.
struct Moment {
  Time now{};
  std::chrono::system_clock::time_point wall{};
};

struct SpoolOptions {
  ClientId client{};                     ///< what another device left is not used
  std::uint64_t max_bytes = 256u << 20;  ///< of all files together
  /// How assignments are written: the protocol's codec, which is not this folder's to know.
  std::function<std::vector<std::byte>(const Assignment&)> encode;
  std::function<Result<Assignment>(std::span<const std::byte>)> decode;
  std::function<void(std::string_view)> note = nullptr;  ///< for the log
};

/// A device's disk: what a Participant wants kept, and gives back to the next process. The format
/// is in client/README.md. Nothing that goes wrong here is fatal: what cannot be written is kept in
/// memory only, what cannot be read is dropped, each with a word. One thread at a time.
class Spool {
 public:
  Spool(std::unique_ptr<StateFolder> folder, SpoolOptions options);
  ~Spool();

  /// What was kept, checked against its hashes. Once, first.
  SavedWork load(Moment now);
  /// Whether the record is durable; blobs that are not are said in a word, and not named in it.
  /// Drops what `work` no longer names.
  bool save(const SavedWork& work, Moment now);
  /// Whether the device may say this: not what binds it for ever while the last save did not land,
  /// which is tried once more. Else to be tried again later.
  bool may_send(const ClientMessage& message, Moment now);
  /// Not durable at once: a loss of power costs at most 1 MiB, or what came in the last ten
  /// seconds.
  void append(const AppendDownload& piece, Time now);
  /// The same bytes as a mapping of the file they were saved in; `bytes` itself if they were not.
  SharedBytes stored(const SharedBytes& bytes);

  std::uint64_t bytes_on_disk() const;

 private:
  struct Blob;
  struct Download;
  struct Wanted;

  // spool.cpp
  std::vector<Wanted> wanted_of(const SavedWork& work) const;
  StateRecord record_of(const SavedWork& work, const std::vector<Wanted>& wanted, Moment now) const;
  bool put(const Wanted& wanted, bool last);
  bool put_state(const SavedWork& work, const std::vector<Wanted>& wanted, Moment now);
  void remember(const std::vector<Wanted>& wanted);
  bool take_download(const Wanted& wanted);
  void clean(const std::vector<Wanted>& wanted);
  void begin_download(const AppendDownload& piece);
  void drop_download();
  Result<void> write_piece(const AppendDownload& piece, Time now);
  Digest digest_of(const SharedBytes& bytes) const;
  bool has(const std::string& name) const;
  void wrote(const std::string& name, std::uint64_t size);
  void remove(const std::string& name);
  void note(std::string_view text) const;
  void note_once(std::string_view text);

  // spool_load.cpp
  std::optional<StateRecord> load_record();
  SavedWork restore(const StateRecord& record, Moment now);
  std::optional<SavedTask> restore(const StateRecord::Task& record);
  SharedBytes blob(const BlobName& name, std::string_view what);
  std::optional<SavedDownload> load_download(const BlobName& name);

  std::unique_ptr<StateFolder> folder_;
  SpoolOptions options_;
  std::vector<StateFolder::File> files_;  ///< of ours
  std::vector<Blob> blobs_;               ///< on disk, and the bytes they are known by
  std::unique_ptr<Download> download_;
  std::optional<SavedWork> unsaved_;      ///< whose record did not land
  std::string last_note_;
};

}  // namespace covey::client
