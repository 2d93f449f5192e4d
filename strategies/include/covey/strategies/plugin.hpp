#pragma once

#include <covey/result.hpp>
#include <covey/strategies/registry.hpp>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <string_view>

/// A strategy plug-in is a shared library with this line at namespace scope of one of its files:
///
///   covey::Result<void> register_strategies(covey::strategies::Registry& registry) {
///     return registry.add("fedavgm", make_fedavgm);
///   }
///   COVEY_STRATEGY_PLUGIN(register_strategies)
///
/// It links covey::strategies (static, so the host needs to export nothing). What crosses the
/// boundary is C++: the host loads a plug-in only if the interface number and the build fingerprint
/// are its own.
namespace covey::strategies {

/// Raised whenever strategy.hpp, registry.hpp or result.hpp changes what a compiled plug-in sees.
inline constexpr std::uint32_t kPluginInterface = 3;

#define COVEY_STRINGIFY_(x) #x
#define COVEY_STRINGIFY(x) COVEY_STRINGIFY_(x)
#if defined(__clang__)
#define COVEY_COMPILER_ "clang " COVEY_STRINGIFY(__clang_major__)
#else
#define COVEY_COMPILER_ "g++ " COVEY_STRINGIFY(__GNUC__)
#endif
#if defined(_GLIBCXX_RELEASE)
#define COVEY_STANDARD_LIBRARY_ "libstdc++ string ABI " COVEY_STRINGIFY(_GLIBCXX_USE_CXX11_ABI)
#elif defined(_LIBCPP_VERSION)
#define COVEY_STANDARD_LIBRARY_ "libc++ ABI " COVEY_STRINGIFY(_LIBCPP_ABI_VERSION)
#else
#define COVEY_STANDARD_LIBRARY_ "another standard library"
#endif
#if defined(_GLIBCXX_DEBUG)
#define COVEY_DEBUG_CONTAINERS_ " (debug containers)"
#else
#define COVEY_DEBUG_CONTAINERS_ ""
#endif
/// COVEY_STRATEGIES_VERSION comes with the CMake target covey::strategies.
inline constexpr char kPluginFingerprint[] = "covey " COVEY_STRATEGIES_VERSION ", " COVEY_COMPILER_
                                             ", " COVEY_STANDARD_LIBRARY_ COVEY_DEBUG_CONTAINERS_;

/// Runs a plug-in's register function inside the plug-in, so that no exception leaves it. Writes
/// the reason of a failure to `problem` (`capacity` chars, zero-terminated) and returns false.
inline bool run_plugin_registration(Result<void> (*register_function)(Registry&),
                                    Registry& registry, char* problem,
                                    std::size_t capacity) noexcept {
  const auto write = [&](std::string_view text) {
    const std::size_t length = text.copy(problem, capacity - 1);
    problem[length] = '\0';
    return false;
  };
  try {
    const Result<void> registered = register_function(registry);
    return registered.ok() ? true : write(registered.error().message);
  } catch (const std::exception& exception) {
    return write(exception.what());
  } catch (...) {
    return write("an exception that is no std::exception");
  }
}

}  // namespace covey::strategies

/// Exports what Registry::load_plugin looks for: covey_strategy_plugin_interface,
/// covey_strategy_plugin_fingerprint and covey_strategy_plugin_register.
#define COVEY_STRATEGY_PLUGIN(register_function)                                                \
  extern "C" {                                                                                  \
  __attribute__((visibility("default"))) std::uint32_t covey_strategy_plugin_interface() {      \
    return ::covey::strategies::kPluginInterface;                                               \
  }                                                                                             \
  __attribute__((visibility("default"))) const char* covey_strategy_plugin_fingerprint() {      \
    return ::covey::strategies::kPluginFingerprint;                                             \
  }                                                                                             \
  __attribute__((visibility("default"))) bool covey_strategy_plugin_register(                   \
      ::covey::strategies::Registry* registry, char* problem, std::size_t capacity) {           \
    return ::covey::strategies::run_plugin_registration(&register_function, *registry, problem, \
                                                        capacity);                              \
  }                                                                                             \
  }
