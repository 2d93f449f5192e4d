#pragma once

#include <covey/models/engine.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <functional>
#include <string>

/// Models that come as a TorchScript file, trained by libtorch behind models::Engine.
namespace covey::torch {

enum class Device { kCpu, kCuda };

/// A TorchScript file, read and checked. Copies share the file's bytes; any thread may use one.
struct Script {
  std::string sha256;  ///< of the file, 64 hex digits: what ModelSpec::torchscript must say
  /// Trainable parameters, then frozen ones, then floating-point buffers, in the file's order.
  ModelLayout layout;
  std::size_t trainable = 0;  ///< leading floats of the layout that training changes

  /// The weights in the file: a run's model before its first round. R^layout.size().
  std::function<Result<ParameterVector>()> initial_parameters;
  /// Engines for this file. Error for a spec that names another file or no file, for a precision
  /// other than "fp32", and where the module does not take the spec's inputs, give one output for
  /// each example (and step), and learn from it; the sentence names the file and the shapes.
  models::EngineFactory make_engine;
};

/// Error naming the file: it cannot be read, is no TorchScript module, has no forward method,
/// nothing to train, or numbers other than float32 to train; or the device is kCuda and there is
/// none.
Result<Script> load_script(const std::string& path, Device device);

}  // namespace covey::torch
