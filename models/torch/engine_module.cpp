#include <covey/torch/engine_module.hpp>

extern "C" __attribute__((visibility("default"))) const covey::torch::EngineModule*
covey_torch_engine_module() {
  static const covey::torch::EngineModule module{.load_script = &covey::torch::load_script};
  return &module;
}
