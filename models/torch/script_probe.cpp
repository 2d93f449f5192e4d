#include <ATen/ATen.h>

#include <optional>
#include <sstream>

#include "errors.hpp"
#include "script_engine.hpp"

namespace covey::torch {
namespace {

/// Two examples, so that batch normalisation in training mode has a variance.
constexpr std::int64_t kExamples = 2;

std::string sizes_of(const at::Tensor& tensor) {
  std::ostringstream out;
  out << tensor.sizes();
  return out.str();
}

}  // namespace

std::string ScriptEngine::refusal(const at::Tensor& inputs, const std::string& reason) const {
  return std::string("the TorchScript file, given ") +
         (shape_.vocabulary > 0 ? "tokens " : "floats ") + sizes_of(inputs) + ": " + reason;
}

/// Whether the module predicts the next token at every step of a sequence of tokens, which one that
/// takes a vector of numbers does not: a matrix product refuses integers.
bool ScriptEngine::takes_tokens(const at::Tensor& zeros) {
  if (spec_.input_shape.size() != 1 || spec_.loss != Loss::kCrossEntropy) return false;
  try {
    const at::Tensor outputs = module_.forward(zeros.to(at::kLong));
    return outputs.dim() == 3 && outputs.size(1) == zeros.size(1);
  } catch (const std::exception&) {
    return false;  // then it is asked again with floats, and says why that fails
  }
}

/// Classes and predictions per example from the outputs for two examples.
Result<void> ScriptEngine::read_shape(const at::Tensor& outputs) {
  const auto wrong = [&](const std::string& wanted) {
    return invalid_argument("it gives " + std::string(c10::toString(outputs.scalar_type())) + " " +
                            sizes_of(outputs) + "; " + wanted);
  };
  const std::int64_t dimensions = outputs.dim();
  if (outputs.scalar_type() != at::kFloat || (dimensions != 2 && dimensions != 3) ||
      outputs.size(0) != kExamples || outputs.numel() == 0) {
    return wrong("it must give Float [2, classes] or, for sequences, Float [2, steps, classes]");
  }
  if (spec_.target == Target::kInput &&
      (dimensions != 2 || outputs.size(1) != static_cast<std::int64_t>(shape_.example_size))) {
    return wrong("with target \"input\" it must give as many numbers as an example has, [2, " +
                 std::to_string(shape_.example_size) + "]");
  }
  if (spec_.loss == Loss::kCrossEntropy && outputs.size(-1) == 1) {
    return wrong("cross-entropy needs an output for each class");
  }
  shape_.classes = static_cast<std::size_t>(outputs.size(-1));
  shape_.labels_per_example = dimensions == 3 ? static_cast<std::size_t>(outputs.size(1)) : 1;
  return {};
}

/// One step's forward and backward pass, then everything as it was.
Result<void> ScriptEngine::probe_training(const at::Tensor& inputs) {
  const auto refused = [&](const std::string& reason) {
    return invalid_argument(refusal(inputs, reason));
  };
  try {
    module_.set_training(true);
    at::Tensor outputs;
    {
      const std::lock_guard lock(generator_mutex());
      const at::Generator generator = at::globalContext().defaultGenerator(module_.device());
      const at::Tensor before = generator.get_state();
      outputs = module_.forward(inputs);
      if (!at::equal(before, generator.get_state())) module_.note_random_draws();
    }
    if (!outputs.requires_grad()) return refused("its output does not depend on any parameter");
    outputs.sum().backward();
  } catch (const std::exception& exception) {
    return refused("it does not train: " + reason_of(exception));
  }
  const std::string displaced = module_.displaced_tensor();
  if (!displaced.empty()) {
    return refused("its forward method puts another tensor in the place of " + displaced +
                   "; change it in place instead (" + displaced + ".copy_(...))");
  }
  const at::NoGradGuard no_grad;
  module_.state().copy_(initial_);
  module_.gradient().zero_();
  module_.reset_local_buffers();
  return {};
}

Result<void> ScriptEngine::probe() {
  const std::vector<float> zeros(static_cast<std::size_t>(kExamples) * shape_.example_size);
  at::Tensor inputs;
  {
    const at::NoGradGuard no_grad;
    module_.set_training(false);
    inputs = batch_of(zeros, {}, kExamples).inputs;
    if (takes_tokens(inputs)) {
      shape_.vocabulary = 1;  // from here on batches are tokens; how many there are follows
      inputs = inputs.to(at::kLong);
    }
    std::optional<at::Tensor> outputs;
    try {
      outputs = module_.forward(inputs);
    } catch (const std::exception& exception) {
      return invalid_argument(refusal(inputs, "it does not run: " + reason_of(exception)));
    }
    const auto shape = read_shape(*outputs);
    if (!shape.ok()) return invalid_argument(refusal(inputs, shape.error().message));
    if (shape_.vocabulary > 0) {
      shape_.vocabulary = static_cast<std::uint32_t>(shape_.classes);
      try {
        module_.forward(at::full_like(inputs, static_cast<std::int64_t>(shape_.vocabulary) - 1));
      } catch (const std::exception& exception) {
        return invalid_argument(
            refusal(inputs, "it predicts " + std::to_string(shape_.classes) +
                                " symbols and does not take that many: " + reason_of(exception)));
      }
    }
  }
  return probe_training(inputs);
}

}  // namespace covey::torch
