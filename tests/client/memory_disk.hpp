#pragma once

#include <covey/client/state_folder.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace covey::client::testing {

/// A folder in memory that outlives those who open it, and fails when told to.
struct MemoryDisk : std::enable_shared_from_this<MemoryDisk> {
  using Bytes = std::vector<std::byte>;
  std::map<std::string, Bytes> files;
  std::uint32_t writes = 0;                 ///< operations that change something, so far
  std::optional<std::uint32_t> fails_from;  ///< this write and those behind it fail
  std::optional<std::uint32_t> fails_at;    ///< this one only
  std::map<std::string, Bytes> durable;     ///< what a loss of power leaves
  bool tears = false;                       ///< what fails is written half

  std::unique_ptr<StateFolder> open() { return std::make_unique<Folder>(shared_from_this()); }

  void lose_power() { files = durable; }

 private:
  bool fails() {
    const std::uint32_t number = writes++;
    return number == fails_at || (fails_from && number >= *fails_from);
  }

  class Folder final : public StateFolder {
   public:
    explicit Folder(std::shared_ptr<MemoryDisk> disk) : disk_(std::move(disk)) {}

    Result<std::vector<File>> list() const override {
      std::vector<File> files;
      for (const auto& [name, bytes] : disk_->files) files.push_back({name, bytes.size()});
      return files;
    }
    Result<SharedBytes> map(const std::string& name) const override {
      const auto found = disk_->files.find(name);
      if (found == disk_->files.end()) return not_found(name);
      return SharedBytes(found->second);
    }
    Result<void> put(const std::string& name, std::span<const std::byte> bytes) override {
      if (disk_->fails()) {
        if (disk_->tears) {
          disk_->files[name + ".tmp"].assign(bytes.begin(), bytes.begin() + half(bytes.size()));
        }
        return full(name);
      }
      disk_->files[name].assign(bytes.begin(), bytes.end());
      disk_->durable[name] = disk_->files[name];
      return {};
    }
    Result<void> append(const std::string& name, std::uint64_t offset,
                        std::span<const std::byte> bytes) override {
      const bool fails = disk_->fails();
      if (fails && !disk_->tears) return full(name);
      Bytes& file = disk_->files[name];
      file.resize(offset);
      const auto end = fails ? bytes.begin() + half(bytes.size()) : bytes.end();
      file.insert(file.end(), bytes.begin(), end);
      if (offset == 0) disk_->durable[name] = {};
      if (fails) return full(name);
      return {};
    }
    Result<void> sync(const std::string& name) override {
      if (disk_->fails()) return full(name);
      disk_->durable[name] = disk_->files.at(name);
      return {};
    }
    Result<void> rename(const std::string& from, const std::string& to) override {
      if (disk_->fails()) return full(to);
      disk_->files[to] = std::move(disk_->files.at(from));
      disk_->files.erase(from);
      disk_->durable.erase(from);
      disk_->durable[to] = disk_->files.at(to);
      return {};
    }
    Result<void> truncate(const std::string& name, std::uint64_t size) override {
      if (disk_->fails()) return full(name);
      disk_->files.at(name).resize(size);
      return {};
    }
    Result<void> remove(const std::string& name) override {
      if (disk_->fails()) return full(name);
      disk_->files.erase(name);
      disk_->durable.erase(name);
      return {};
    }

   private:
    static std::ptrdiff_t half(std::size_t size) { return static_cast<std::ptrdiff_t>(size / 2); }
    static Error full(const std::string& name) { return failed("writing " + name + ": disk full"); }
    std::shared_ptr<MemoryDisk> disk_;
  };
};

}  // namespace covey::client::testing
