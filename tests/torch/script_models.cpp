#include "script_models.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <covey/random.hpp>

namespace covey::torch_tests {
namespace {

at::Tensor make_tensor(const TensorOf& wanted, RandomStream& random) {
  using Kind = TensorOf::Kind;
  if (wanted.kind == Kind::kCounter) return at::zeros(wanted.sizes, at::kLong);
  if (wanted.name.ends_with("var")) return at::ones(wanted.sizes);
  at::Tensor tensor = at::empty(wanted.sizes);
  float* values = tensor.data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    values[i] = static_cast<float>(random.uniform(-0.1, 0.1));
  }
  if (wanted.kind == Kind::kDoubleParameter) tensor = tensor.to(at::kDouble);
  if (wanted.kind == Kind::kHalfBuffer) tensor = tensor.to(at::kHalf);
  return tensor.requires_grad_(wanted.kind == Kind::kParameter ||
                               wanted.kind == Kind::kDoubleParameter);
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  static std::atomic<int> number{0};
  path_ = std::filesystem::temp_directory_path() /
          ("covey-torch-" + std::to_string(getpid()) + "-" + std::to_string(number++));
  std::filesystem::create_directories(path_);
}
TemporaryFolder::~TemporaryFolder() { std::filesystem::remove_all(path_); }

std::string save_module(const std::string& path, const std::vector<TensorOf>& tensors,
                        const std::string& source, std::uint64_t seed) {
  using Kind = TensorOf::Kind;
  ::torch::jit::Module module("Net");
  RandomStream random(seed, RandomPurpose::kModelInitialisation);
  module.register_attribute("training", c10::BoolType::get(), true);
  for (const TensorOf& wanted : tensors) {
    const bool is_buffer = wanted.kind == Kind::kBuffer || wanted.kind == Kind::kCounter ||
                           wanted.kind == Kind::kHalfBuffer;
    module.register_parameter(wanted.name, make_tensor(wanted, random), is_buffer);
  }
  module.define(source);
  module.save(path);
  return path;
}

std::string save_dense(const std::string& path, std::int64_t inputs, std::int64_t hidden,
                       std::int64_t classes) {
  return save_module(
      path,
      {{"w1", {inputs, hidden}}, {"b1", {hidden}}, {"w2", {hidden, classes}}, {"b2", {classes}}},
      "def forward(self, x):\n"
      "  h = torch.relu(torch.matmul(x, self.w1) + self.b1)\n"
      "  return torch.matmul(h, self.w2) + self.b2\n");
}

std::string save_batch_norm(const std::string& path) {
  using Kind = TensorOf::Kind;
  return save_module(
      path,
      {{"filters", {6, 3, 3, 3}},
       {"scale", {6}},
       {"shift", {6}},
       {"weight", {4, 6}},
       {"bias", {4}},
       {"running_mean", {6}, Kind::kBuffer},
       {"running_var", {6}, Kind::kBuffer},
       {"num_batches_tracked", {}, Kind::kCounter}},
      "def forward(self, x):\n"
      "  if self.training:\n"
      "    self.num_batches_tracked.add_(1)\n"
      "  y = torch.conv2d(x, self.filters, None, [1, 1], [1, 1])\n"
      "  y = torch.batch_norm(y, self.scale, self.shift, self.running_mean, self.running_var,\n"
      "                       self.training, 0.1, 1e-5, False)\n"
      "  y = torch.relu(y).mean([2, 3])\n"
      "  return torch.matmul(y, self.weight.t()) + self.bias\n");
}

std::string save_dropout(const std::string& path, std::int64_t inputs, std::int64_t classes) {
  return save_module(path,
                     {{"w1", {inputs, 16}}, {"b1", {16}}, {"w2", {16, classes}}, {"b2", {classes}}},
                     "def forward(self, x):\n"
                     "  h = torch.relu(torch.matmul(x, self.w1) + self.b1)\n"
                     "  h = torch.dropout(h, 0.5, self.training)\n"
                     "  return torch.matmul(h, self.w2) + self.b2\n");
}

std::string save_next_token(const std::string& path, std::int64_t symbols) {
  return save_module(path, {{"table", {symbols, 8}}, {"weight", {8, symbols}}},
                     "def forward(self, x):\n"
                     "  return torch.matmul(torch.embedding(self.table, x), self.weight)\n");
}

std::string save_shared(const std::string& path) {
  RandomStream random(7, RandomPurpose::kModelInitialisation);
  const at::Tensor weight = make_tensor({"weight", {4, 4}}, random);
  ::torch::jit::Module module("Net");
  module.register_attribute("training", c10::BoolType::get(), true);
  for (const char* name : {"first", "second"}) {
    ::torch::jit::Module half(std::string("Half_") + name);
    half.register_attribute("training", c10::BoolType::get(), true);
    half.register_parameter("weight", weight, false);
    half.define("def forward(self, x):\n  return torch.matmul(x, self.weight)\n");
    module.register_module(name, half);
  }
  module.define("def forward(self, x):\n  return self.second.forward(self.first.forward(x))\n");
  module.save(path);
  return path;
}

ModelSpec spec_of(const covey::torch::Script& script, std::vector<std::uint32_t> input_shape) {
  ModelSpec spec;
  spec.input_shape = std::move(input_shape);
  spec.torchscript = script.sha256;
  return spec;
}

std::unique_ptr<models::Engine> make_loaded(const std::string& path,
                                            std::vector<std::uint32_t> input_shape) {
  auto script = covey::torch::load_script(path, covey::torch::Device::kCpu);
  INFO((script.ok() ? "" : script.error().message));
  REQUIRE(script.ok());
  auto engine = script->make_engine(spec_of(*script, std::move(input_shape)), "fp32");
  INFO((engine.ok() ? "" : engine.error().message));
  REQUIRE(engine.ok());
  (*engine)->reserve(64);
  const ParameterVector weights = script->initial_parameters().value();
  REQUIRE((*engine)->load(encode_fp32(weights.span()).span()).ok());
  return std::move(*engine);
}

std::string refusal(const std::string& path, const ModelSpec& spec) {
  auto script = covey::torch::load_script(path, covey::torch::Device::kCpu);
  if (!script.ok()) return script.error().message;
  ModelSpec asked = spec;
  if (asked.torchscript.empty()) asked.torchscript = script->sha256;
  const auto engine = script->make_engine(asked, "fp32");
  return engine.ok() ? "" : engine.error().message;
}

Batch random_batch(std::size_t examples, std::size_t example_size, std::uint32_t classes,
                   std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kDataGeneration);
  Batch batch{std::vector<float>(examples * example_size), std::vector<std::int32_t>(examples)};
  for (float& value : batch.inputs) value = static_cast<float>(random.uniform());
  for (auto& label : batch.labels) label = static_cast<std::int32_t>(random.below(classes));
  return batch;
}

}  // namespace covey::torch_tests
