#include <algorithm>
#include <covey/server/upload_spool.hpp>
#include <exception>

#include "upload_window.hpp"

namespace covey::server {

namespace {

/// Uploads in memory. One thread at a time.
class MemorySpool final : public UploadSpool {
 public:
  Result<std::uint64_t> open(const UploadKey& key, std::uint64_t size) override {
    COVEY_TRY(check_announced_size(key, size));
    Upload& upload = uploads_[key];
    if (upload.size != size) upload = Upload{.size = size, .parts = {}, .whole = {}};
    return upload.held();
  }

  Result<void> write(const UploadKey& key, std::uint64_t offset,
                     const SharedBytes& payload) override {
    const auto found = uploads_.find(key);
    if (found == uploads_.end()) return failed(describe(key) + " was not opened");
    Upload& upload = found->second;
    COVEY_ASSIGN(const std::uint64_t skip,
                 bytes_to_skip(key, upload.size, upload.held(), offset, payload.size()));
    if (skip == payload.size()) return {};
    if (upload.held() == 0 && payload.size() == upload.size) {
      upload.whole = payload;
      return {};
    }
    try {
      upload.parts.reserve(static_cast<std::size_t>(upload.size));
      const auto fresh = payload.span().subspan(static_cast<std::size_t>(skip));
      upload.parts.insert(upload.parts.end(), fresh.begin(), fresh.end());
    } catch (const std::exception&) {
      return failed(describe(key) + " does not fit into memory");
    }
    if (upload.parts.size() == upload.size) upload.whole = SharedBytes(std::move(upload.parts));
    return {};
  }

  Result<SharedBytes> read(const UploadKey& key) override {
    const auto found = uploads_.find(key);
    if (found == uploads_.end()) return failed(describe(key) + " was not opened");
    const Upload& upload = found->second;
    if (upload.held() != upload.size) {
      return failed(describe(key) + " is incomplete: " + std::to_string(upload.held()) + " of " +
                    std::to_string(upload.size) + " bytes");
    }
    return upload.whole;
  }

  void drop(const UploadKey& key) override { uploads_.erase(key); }

  void keep_only(RunId run, RoundNumber oldest) override {
    std::erase_if(uploads_, [&](const auto& entry) {
      return entry.first.run != run || entry.first.round < oldest;
    });
  }

 private:
  struct Upload {
    std::uint64_t size = 0;
    std::vector<std::byte> parts;  ///< until it is complete
    SharedBytes whole;             ///< once it is

    std::uint64_t held() const { return whole.empty() ? parts.size() : whole.size(); }
  };
  std::map<UploadKey, Upload> uploads_;
};

}  // namespace

std::unique_ptr<UploadSpool> make_memory_spool() { return std::make_unique<MemorySpool>(); }

}  // namespace covey::server
