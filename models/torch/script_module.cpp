#include "script_module.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include <istream>
#include <streambuf>
#include <tuple>

#include "errors.hpp"

namespace covey::torch {
namespace {

/// Reads bytes where they lie.
class BytesBuffer : public std::streambuf {
 public:
  explicit BytesBuffer(std::span<const std::byte> bytes) {
    char* begin = const_cast<char*>(reinterpret_cast<const char*>(bytes.data()));
    setg(begin, begin, begin + bytes.size());
  }

 protected:
  pos_type seekoff(off_type offset, std::ios_base::seekdir from, std::ios_base::openmode) override {
    const off_type base = from == std::ios_base::beg   ? 0
                          : from == std::ios_base::cur ? gptr() - eback()
                                                       : egptr() - eback();
    const off_type at = base + offset;
    if (at < 0 || at > egptr() - eback()) return pos_type(off_type(-1));
    setg(eback(), eback() + at, egptr());
    return pos_type(at);
  }
  pos_type seekpos(pos_type at, std::ios_base::openmode which) override {
    return seekoff(off_type(at), std::ios_base::beg, which);
  }
};

bool draws_random(const ::torch::jit::Block& block) {
  for (const ::torch::jit::Node* node : block.nodes()) {
    if (node->isNondeterministic()) return true;
    for (const ::torch::jit::Block* inner : node->blocks()) {
      if (draws_random(*inner)) return true;
    }
  }
  return false;
}

bool draws_random(const ::torch::jit::Module& module) {
  const auto graph = module.get_method("forward").graph()->copy();
  ::torch::jit::Inline(*graph);
  return draws_random(*graph->block());
}

std::vector<std::uint32_t> shape_of(const at::Tensor& tensor) {
  std::vector<std::uint32_t> shape;
  for (const std::int64_t side : tensor.sizes()) shape.push_back(static_cast<std::uint32_t>(side));
  return shape;
}

}  // namespace

Result<ScriptModule> ScriptModule::load(const ScriptFile& file) {
  const std::string what = "TorchScript file " + file.path;
  const at::Device device = file.device == Device::kCuda ? at::Device(at::kCUDA, 0) : at::kCPU;
  ScriptModule module;
  try {
    BytesBuffer buffer(file.bytes.span());
    std::istream in(&buffer);
    module.module_ = ::torch::jit::load(in, device);
    if (!module.module_.find_method("forward")) {
      return invalid_argument(what + " holds a module without a forward method");
    }
    COVEY_TRY(module.collect(file));
    module.bind(device);
    module.may_draw_random_ = draws_random(module.module_);
  } catch (const std::exception& exception) {
    return invalid_argument(
        what + " does not load as a TorchScript module (torch.jit.save): " + reason_of(exception));
  }
  return module;
}

/// Sorts the module's tensors into what is trained, what else belongs to the model, and what stays.
Result<void> ScriptModule::collect(const ScriptFile& file) {
  const auto refuse = [&](const std::string& name, const at::Tensor& tensor,
                          const std::string& kind) {
    return invalid_argument("TorchScript file " + file.path + ": " + kind + " " + name + " is " +
                            c10::toString(tensor.scalar_type()) +
                            "; only float32 can be trained and averaged (module.float() makes it "
                            "so)");
  };
  std::vector<Bound> frozen;
  for (const auto& parameter : module_.named_parameters()) {
    if (parameter.value.scalar_type() != at::kFloat) {
      return refuse(parameter.name, parameter.value, "parameter");
    }
    (parameter.value.requires_grad() ? bound_ : frozen)
        .push_back({parameter.name, parameter.value, 0});
  }
  if (bound_.empty()) {
    return invalid_argument("TorchScript file " + file.path +
                            " has nothing to train: no parameter that requires a gradient");
  }
  for (Bound& bound : bound_) bound.offset = place(bound);
  trainable_ = layout_.size();
  for (const auto& buffer : module_.named_buffers()) {
    if (!buffer.value.defined()) continue;
    if (buffer.value.scalar_type() == at::kFloat) {
      frozen.push_back({buffer.name, buffer.value, 0});
    } else if (buffer.value.is_floating_point() || buffer.value.is_complex()) {
      return refuse(buffer.name, buffer.value, "buffer");
    } else {
      local_buffers_.push_back({buffer.name, buffer.value, buffer.value.clone()});
    }
  }
  for (Bound& bound : frozen) {
    bound.offset = place(bound);
    bound_.push_back(std::move(bound));
  }
  return {};
}

/// Where a tensor lies in the flat vector. Weights that are shared have one place.
std::size_t ScriptModule::place(const Bound& bound) {
  for (const Bound& other : bound_) {
    if (&other == &bound) break;
    if (other.tensor.data_ptr() == bound.tensor.data_ptr() && bound.tensor.numel() > 0 &&
        other.tensor.sizes() == bound.tensor.sizes() &&
        other.tensor.strides() == bound.tensor.strides()) {
      return other.offset;
    }
  }
  return layout_.append(bound.name, shape_of(bound.tensor));
}

void ScriptModule::bind(const at::Device& device) {
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  const auto p = static_cast<std::int64_t>(trainable_);
  state_ = at::empty({static_cast<std::int64_t>(layout_.size())}, options);
  gradient_ = at::zeros({p}, options);
  weights_ = state_.narrow(0, 0, p);
  const auto view = [](const at::Tensor& flat, const Bound& bound) {
    return flat.narrow(0, static_cast<std::int64_t>(bound.offset), bound.tensor.numel())
        .view(bound.tensor.sizes());
  };
  for (Bound& bound : bound_) view(state_, bound).copy_(bound.tensor.detach());
  for (Bound& bound : bound_) {
    bound.tensor.set_data(view(state_, bound));
    if (bound.tensor.requires_grad()) bound.tensor.mutable_grad() = view(gradient_, bound);
  }
}

void ScriptModule::set_training(bool on) {
  if (knows_mode_ && training_ == on) return;
  for (::torch::jit::Module part : module_.modules()) {
    if (part.hasattr("training")) part.setattr("training", on);
  }
  training_ = on;
  knows_mode_ = true;
}

at::Tensor ScriptModule::forward(const at::Tensor& inputs) {
  const ::torch::jit::IValue outputs = module_.forward({inputs});
  TORCH_CHECK(outputs.isTensor(), "forward returns ", outputs.tagKind(), " instead of one Tensor");
  return outputs.toTensor();
}

void ScriptModule::reset_local_buffers() {
  for (LocalBuffer& buffer : local_buffers_) buffer.tensor.copy_(buffer.original);
}

std::string ScriptModule::displaced_tensor() const {
  const auto* states = static_cast<const float*>(state_.data_ptr());
  const auto* gradients = static_cast<const float*>(gradient_.data_ptr());
  const auto is_view = [&](const at::Tensor& tensor, const std::string& name) {
    for (const Bound& bound : bound_) {
      if (bound.name != name || bound.tensor.numel() == 0) continue;
      if (tensor.data_ptr() != states + bound.offset) return false;
      return !tensor.requires_grad() || tensor.grad().data_ptr() == gradients + bound.offset;
    }
    return true;
  };
  for (const auto& parameter : module_.named_parameters()) {
    if (!is_view(parameter.value, parameter.name)) return parameter.name;
  }
  for (const auto& buffer : module_.named_buffers()) {
    if (!is_view(buffer.value, buffer.name)) return buffer.name;
  }
  return "";
}

PlainExecution::PlainExecution() : optimised_before_(::torch::jit::getGraphExecutorOptimize()) {
  // Threads of its own would fight with those that train other devices. The setting is per thread.
  static thread_local const bool one_thread = [] {
    at::set_num_threads(1);
    return true;
  }();
  static_cast<void>(one_thread);
  ::torch::jit::setGraphExecutorOptimize(false);
}
PlainExecution::~PlainExecution() { ::torch::jit::setGraphExecutorOptimize(optimised_before_); }

}  // namespace covey::torch
