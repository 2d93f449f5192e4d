#pragma once

#include <covey/models/engine.hpp>
#include <covey/result.hpp>
#include <covey/torch/script.hpp>
#include <cstdint>
#include <string>

/// The library as a module that a program loads when a run needs it (dlopen): a program that links
/// libtorch takes 0.3 s and 150 MiB more to start, whatever it is asked to do.
namespace covey::torch {

/// C++ crosses the boundary, so both sides must have been compiled alike. A module lies beside its
/// program; this finds one that was left behind by another build.
inline constexpr std::uint64_t kEngineModuleInterface =
    1 + 1000 * (sizeof(Script) +
                1000 * (sizeof(ModelSpec) +
                        1000 * (sizeof(OptimizerSpec) +
                                1000 * (sizeof(models::DataShape) + sizeof(models::Evaluation)))));

/// What the module exports. Never unloaded: its engines live as long as they like.
struct EngineModule {
  std::uint64_t interface =
      kEngineModuleInterface;  ///< first; compared before anything else is used
  Result<Script> (*load_script)(const std::string& path, Device device) = nullptr;
};

inline constexpr char kEngineModuleSymbol[] = "covey_torch_engine_module";
using EngineModuleFunction = const EngineModule*();

}  // namespace covey::torch
