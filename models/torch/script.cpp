#include <ATen/Context.h>

#include <covey/torch/script.hpp>
#include <memory>

#include "errors.hpp"
#include "script_engine.hpp"
#include "script_file.hpp"
#include "script_module.hpp"

namespace covey::torch {
namespace {

Result<ParameterVector> initial_parameters(const ScriptFile& file) {
  COVEY_ASSIGN(ScriptModule module, ScriptModule::load(file));
  try {
    const at::Tensor state = module.state().cpu();
    ParameterVector parameters(module.layout().size());
    std::copy_n(state.data_ptr<float>(), parameters.size(), parameters.data());
    return parameters;
  } catch (const std::exception& exception) {
    return failed("the TorchScript file: " + reason_of(exception));
  }
}

Result<std::unique_ptr<models::Engine>> make_engine(const ScriptFile& file, const ModelSpec& spec,
                                                    std::string_view precision) {
  if (spec.torchscript.empty()) {
    return invalid_argument("the plan describes its network by layers, not by a TorchScript file");
  }
  if (spec.torchscript != file.sha256) {
    return invalid_argument("the TorchScript file here has the SHA-256 " + file.sha256 +
                            ", the plan asks for " + spec.torchscript +
                            ": every device and the server need the same file");
  }
  if (precision != "fp32") {
    return invalid_argument("a TorchScript file trains in fp32, not in " + std::string(precision));
  }
  COVEY_ASSIGN(auto engine, ScriptEngine::make(file, spec));
  return std::unique_ptr<models::Engine>(std::move(engine));
}

}  // namespace

Result<Script> load_script(const std::string& path, Device device) {
  if (device == Device::kCuda && at::getNumGPUs() == 0) {
    return invalid_argument(
        "model.device is \"cuda\", but this libtorch sees no CUDA device; use \"cpu\"");
  }
  COVEY_ASSIGN(ScriptFile read, ScriptFile::read(path, device));
  const auto file = std::make_shared<const ScriptFile>(std::move(read));
  COVEY_ASSIGN(const ScriptModule module, ScriptModule::load(*file));
  Script script;
  script.sha256 = file->sha256;
  script.layout = module.layout();
  script.trainable = module.trainable();
  script.initial_parameters = [file] { return initial_parameters(*file); };
  script.make_engine = [file](const ModelSpec& spec, std::string_view precision) {
    return make_engine(*file, spec, precision);
  };
  return script;
}

}  // namespace covey::torch
