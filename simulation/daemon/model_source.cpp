#include "simulation/daemon/model_source.hpp"

#include <filesystem>
#include <memory>
#include <utility>

#include <dlfcn.h>

#include <covey/torch/engine_module.hpp>

namespace covey {
namespace {

namespace fs = std::filesystem;

constexpr char kModuleName[] = "libcovey_torch.so";

/// Beside the program, as it is built, or in the library folder, as it is installed.
Result<fs::path> find_module() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  const fs::path beside = program / kModuleName;
  const fs::path installed = program.parent_path() / COVEY_MODULE_FOLDER / kModuleName;
  for (const fs::path& path : {beside, installed}) {
    if (fs::exists(path, error)) return path;
  }
  return failed("model.torchscript needs libtorch, and this build of covey has none (no " + beside.string() +
                ", no " + installed.string() +
                "): run scripts/install_dependencies --torch and build again");
}

Result<const torch::EngineModule*> load_module() {
  COVEY_ASSIGN(const fs::path path, find_module());
  // Stays loaded: engines and what they threw live as long as they like.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    return failed("cannot load " + path.string() + ": " + (reason == nullptr ? "no reason given" : reason));
  }
  auto* function =
      reinterpret_cast<torch::EngineModuleFunction*>(dlsym(library, torch::kEngineModuleSymbol));
  const torch::EngineModule* module = function == nullptr ? nullptr : function();
  if (module == nullptr || module->interface != torch::kEngineModuleInterface) {
    return failed(path.string() + " belongs to another build of covey; build both together");
  }
  return module;
}

/// Refuses a plan's TorchScript network by saying what this device lacks.
Result<std::unique_ptr<models::Engine>> make_own_engine(const ModelSpec& spec, std::string_view precision) {
  if (!spec.torchscript.empty()) {
    return failed("the plan's network is a TorchScript file (SHA-256 " + spec.torchscript +
                  "), and this device was not given one: name it with --torchscript FILE, or as "
                  "model.torchscript in its run file");
  }
  return models::make_engine(spec, precision);
}

}  // namespace

Result<simulation::ModelSource> model_source(const RunConfig& config, const std::string& data_directory) {
  simulation::ModelSource source;
  source.make_engine = make_own_engine;
  if (config.model.torchscript.empty()) return source;

  std::error_code error;
  fs::path path = config.model.torchscript;
  if (!data_directory.empty() && fs::exists(fs::path(data_directory) / path, error)) {
    path = fs::path(data_directory) / path;
  }
  if (!fs::exists(path, error)) {
    return not_found("model.torchscript: there is no file " + path.string());
  }
  COVEY_ASSIGN(const torch::EngineModule* module, load_module());
  const auto device = config.model.device == "cuda" ? torch::Device::kCuda : torch::Device::kCpu;
  COVEY_ASSIGN(auto script, module->load_script(path.string(), device));
  source.torchscript_parameters = [initial = std::move(script.initial_parameters)](const ModelSpec&) {
    return initial();
  };
  source.make_engine = [from_script = std::move(script.make_engine)](
                           const ModelSpec& spec, std::string_view precision) {
    return spec.torchscript.empty() ? models::make_engine(spec, precision) : from_script(spec, precision);
  };
  return source;
}

}  // namespace covey
