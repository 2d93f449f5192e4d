#include "client/daemon/sudden_death.hpp"

#include <unistd.h>

#include <csignal>
#include <utility>

namespace covey::client {
namespace {

class MortalFolder final : public StateFolder {
 public:
  MortalFolder(std::unique_ptr<StateFolder> folder, SuddenDeath& death)
      : folder_(std::move(folder)), death_(death) {}

  Result<std::vector<File>> list() const override { return folder_->list(); }
  Result<SharedBytes> map(const std::string& name) const override { return folder_->map(name); }
  Result<void> put(const std::string& name, std::span<const std::byte> bytes) override {
    death_.step();
    return folder_->put(name, bytes);
  }
  Result<void> append(const std::string& name, std::uint64_t offset,
                      std::span<const std::byte> bytes) override {
    death_.step();
    return folder_->append(name, offset, bytes);
  }
  Result<void> sync(const std::string& name) override {
    death_.step();
    return folder_->sync(name);
  }
  Result<void> rename(const std::string& from, const std::string& to) override {
    death_.step();
    return folder_->rename(from, to);
  }
  Result<void> truncate(const std::string& name, std::uint64_t size) override {
    death_.step();
    return folder_->truncate(name, size);
  }
  Result<void> remove(const std::string& name) override {
    death_.step();
    return folder_->remove(name);
  }

 private:
  std::unique_ptr<StateFolder> folder_;
  SuddenDeath& death_;
};

}  // namespace

void SuddenDeath::step() {
  if (++steps_ != at_) return;
  kill(getpid(), SIGKILL);
  pause();  // it is delivered before this returns
}

std::unique_ptr<StateFolder> mortal_folder(std::unique_ptr<StateFolder> folder,
                                           SuddenDeath& death) {
  return std::make_unique<MortalFolder>(std::move(folder), death);
}

}  // namespace covey::client
