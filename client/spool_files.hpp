#pragma once

#include <covey/client/spool.hpp>
#include <string>
#include <string_view>

// What the two halves of Spool share: the names of its files, and what it knows of them.
namespace covey::client {

inline constexpr std::string_view kState = "state";

inline std::string blob_file(const Digest& digest) { return "blob-" + digest.hex(); }
inline std::string download_file(const Digest& digest) { return "download-" + digest.hex(); }
inline std::string journal_file(const Digest& digest) { return download_file(digest) + ".journal"; }

struct Spool::Blob {
  SharedBytes bytes;  ///< as the participant has them
  Digest digest;
  bool mapped = false;
  /// What they were before they were mapped, where somebody still holds that.
  std::weak_ptr<const void> before = {};
  const std::byte* before_data = nullptr;
};

struct Spool::Download {
  BlobName name;
  std::uint64_t held = 0, entries = 0;
  bool kept = true;  ///< false: it does not fit, or could not be written
  std::uint64_t unsynced = 0;
  Time synced{};
};

/// Bytes that are to lie on disk.
struct Spool::Wanted {
  const SharedBytes* bytes = nullptr;
  BlobName name;
  std::string_view what;
  bool kept = false;
};

}  // namespace covey::client
