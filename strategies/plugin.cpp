// The host's side of strategies/plugin.hpp: POSIX dlopen.

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <covey/strategies/plugin.hpp>
#include <filesystem>
#include <memory>
#include <system_error>

namespace covey::strategies {
namespace {

struct CloseLibrary {
  void operator()(void* handle) const { dlclose(handle); }
};
using Library = std::unique_ptr<void, CloseLibrary>;

template <typename Function>
Function* find(const Library& library, const char* symbol) {
  return reinterpret_cast<Function*>(dlsym(library.get(), symbol));
}

Result<Library> open(const std::string& path) {
  std::error_code code;
  if (!std::filesystem::is_regular_file(path, code)) {
    const std::string from = std::filesystem::path(path).is_absolute()
                                 ? ""
                                 : fmt::format(" (looked for from the working directory, {})",
                                               std::filesystem::current_path(code).string());
    return not_found(fmt::format("strategy plug-in {}: there is no such file{}", path, from));
  }
  // An absolute path, because dlopen looks for a bare name in the system's library directories.
  const std::string absolute = std::filesystem::absolute(path, code).string();
  Library library(dlopen(absolute.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (!library) {
    const char* reason = dlerror();
    return invalid_argument(fmt::format("strategy plug-in {} cannot be loaded: {}", path,
                                        reason == nullptr ? "no reason given" : reason));
  }
  return library;
}

}  // namespace

Result<void> Registry::load_plugin(const std::string& path) {
  COVEY_ASSIGN(Library library, open(path));
  auto* interface_number = find<std::uint32_t()>(library, "covey_strategy_plugin_interface");
  auto* fingerprint = find<const char*()>(library, "covey_strategy_plugin_fingerprint");
  auto* enter =
      find<bool(Registry*, char*, std::size_t)>(library, "covey_strategy_plugin_register");
  if (interface_number == nullptr || fingerprint == nullptr || enter == nullptr) {
    return invalid_argument(fmt::format(
        "{} is a shared library but no Covey strategy plug-in: COVEY_STRATEGY_PLUGIN is missing",
        path));
  }
  if (interface_number() != kPluginInterface) {
    return invalid_argument(fmt::format(
        "strategy plug-in {} was built for plug-in interface {}, this program has {}: rebuild it "
        "against this version of Covey",
        path, interface_number(), kPluginInterface));
  }
  if (std::string_view(fingerprint()) != kPluginFingerprint) {
    return invalid_argument(fmt::format(
        "strategy plug-in {} was built with \"{}\", this program with \"{}\": rebuild it to match",
        path, fingerprint(), kPluginFingerprint));
  }
  // From here the library stays loaded: strategies and factories of it live as long as they like.
  [[maybe_unused]] const void* loaded = library.release();
  Registry candidate = *this;
  std::array<char, 1024> problem{};
  if (!enter(&candidate, problem.data(), problem.size())) {
    return failed(fmt::format("strategy plug-in {} could not register: {}", path, problem.data()));
  }
  *this = std::move(candidate);
  return {};
}

}  // namespace covey::strategies
