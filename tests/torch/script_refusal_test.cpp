// What is refused, before a round begins, and in which words.
#include <catch2/catch.hpp>
#include <fstream>

#include "script_models.hpp"

using namespace covey;
using namespace covey::torch_tests;
using Catch::Contains;
using Kind = TensorOf::Kind;

namespace {

ModelSpec numbers(std::uint32_t features) {
  ModelSpec spec;
  spec.input_shape = {features};
  return spec;
}

}  // namespace

TEST_CASE("A TorchScript file that is not there, or is something else, is refused by name") {
  const TemporaryFolder folder;
  CHECK_THAT(refusal(folder.file("absent.pt"), numbers(4)),
             Contains("absent.pt") && Contains("no such file"));
  std::ofstream(folder.file("text.pt")) << "these are no weights";
  CHECK_THAT(refusal(folder.file("text.pt"), numbers(4)),
             Contains("text.pt") && Contains("does not load as a TorchScript module"));
  std::ofstream(folder.file("empty.pt")) << "";
  CHECK_THAT(refusal(folder.file("empty.pt"), numbers(4)), Contains("does not load"));
  // Cut short, as by a full disk.
  const std::string whole = save_dense(folder.file("whole.pt"), 4, 3, 2);
  std::filesystem::copy_file(whole, folder.file("cut.pt"));
  std::filesystem::resize_file(folder.file("cut.pt"), std::filesystem::file_size(whole) / 2);
  CHECK_THAT(refusal(folder.file("cut.pt"), numbers(4)), Contains("does not load"));
}

TEST_CASE("Another file than the plan's is refused") {
  const TemporaryFolder folder;
  const std::string path = save_dense(folder.file("net.pt"), 4, 3, 2);
  ModelSpec spec = numbers(4);
  spec.torchscript = std::string(64, 'a');
  CHECK_THAT(refusal(path, spec), Contains("SHA-256") && Contains(spec.torchscript));
}

TEST_CASE("A plan without a TorchScript file, or in another precision, is refused") {
  const TemporaryFolder folder;
  const auto script = covey::torch::load_script(save_dense(folder.file("net.pt"), 4, 3, 2),
                                                covey::torch::Device::kCpu)
                          .value();
  CHECK_THAT(script.make_engine(numbers(4), "fp32").error().message, Contains("by layers"));
  CHECK_THAT(script.make_engine(spec_of(script, {4}), "int8").error().message, Contains("int8"));
}

TEST_CASE("A CUDA device that is not there is refused") {
  const TemporaryFolder folder;
  const auto script = covey::torch::load_script(save_dense(folder.file("net.pt"), 4, 3, 2),
                                                covey::torch::Device::kCuda);
  if (script.ok()) {
    WARN("this machine has a CUDA device");
  } else {
    CHECK_THAT(script.error().message, Contains("no CUDA device"));
  }
}

TEST_CASE("Tensors that cannot be trained are refused by name") {
  const TemporaryFolder folder;
  const std::string forward = "def forward(self, x):\n  return torch.matmul(x, self.w.float())\n";
  CHECK_THAT(refusal(save_module(folder.file("double.pt"), {{"w", {4, 2}, Kind::kDoubleParameter}},
                                 forward),
                     numbers(4)),
             Contains("parameter w is Double") && Contains("float32"));
  CHECK_THAT(refusal(save_module(folder.file("half.pt"),
                                 {{"w", {4, 2}}, {"mean", {4}, Kind::kHalfBuffer}}, forward),
                     numbers(4)),
             Contains("buffer mean is Half"));
  CHECK_THAT(refusal(save_module(folder.file("frozen.pt"), {{"w", {4, 2}, Kind::kFrozen}}, forward),
                     numbers(4)),
             Contains("nothing to train"));
  CHECK_THAT(refusal(save_module(folder.file("none.pt"), {}, "def forward(self, x):\n  return x\n"),
                     numbers(4)),
             Contains("nothing to train"));
  CHECK_THAT(refusal(save_module(folder.file("other.pt"), {{"w", {4, 2}}},
                                 "def predict(self, x):\n  return torch.matmul(x, self.w)\n"),
                     numbers(4)),
             Contains("without a forward method"));
}

TEST_CASE("A module that does not fit the data is refused with both shapes") {
  const TemporaryFolder folder;
  const std::string path = save_dense(folder.file("net.pt"), 4, 3, 2);
  CHECK_THAT(refusal(path, numbers(5)), Contains("the TorchScript file") && !Contains(path) &&
                                            Contains("floats [2, 5]") && Contains("does not run"));
  const std::vector<TensorOf> weights = {{"w", {4, 2}}};
  const auto refused = [&](const std::string& name, const std::string& body, ModelSpec spec) {
    return refusal(
        save_module(folder.file(name), weights, "def forward(self, x):\n  " + body + "\n"), spec);
  };
  CHECK_THAT(refused("flat.pt", "return torch.matmul(x, self.w).sum(1)", numbers(4)),
             Contains("it gives Float [2]") && Contains("[2, classes]"));
  CHECK_THAT(refused("mean.pt", "return torch.matmul(x, self.w).mean(0).unsqueeze(0)", numbers(4)),
             Contains("it gives Float [1, 2]"));
  CHECK_THAT(refused("pair.pt", "return torch.matmul(x, self.w), x", numbers(4)),
             Contains("Tuple"));
  CHECK_THAT(
      refused("class.pt", "return torch.argmax(torch.matmul(x, self.w), 1, True)", numbers(4)),
      Contains("it gives Long [2, 1]"));
  CHECK_THAT(refused("one.pt", "return torch.matmul(x, self.w).sum(1, True)", numbers(4)),
             Contains("an output for each class"));
  ModelSpec autoencoder = numbers(4);
  autoencoder.loss = Loss::kMeanSquaredError;
  autoencoder.target = Target::kInput;
  CHECK_THAT(refused("encoder.pt", "return torch.matmul(x, self.w)", autoencoder),
             Contains("[2, 4]") && Contains("[2, 2]"));
}

TEST_CASE("A module that cannot learn is refused") {
  const TemporaryFolder folder;
  const std::vector<TensorOf> weights = {{"w", {4, 2}}, {"seen", {4}, Kind::kBuffer}};
  const auto refused = [&](const std::string& name, const std::string& body) {
    return refusal(save_module(folder.file(name), weights, "def forward(self, x):\n" + body),
                   numbers(4));
  };
  CHECK_THAT(refused("detached.pt", "  return torch.matmul(x, self.w).detach()\n"),
             Contains("does not depend on any parameter"));
  CHECK_THAT(refused("throws.pt",
                     "  if self.training:\n    assert False, 'only for inference'\n"
                     "  return torch.matmul(x, self.w)\n"),
             Contains("does not train") && Contains("only for inference"));
  CHECK_THAT(refused("replaces.pt", "  self.seen = x.mean(0)\n  return torch.matmul(x, self.w)\n"),
             Contains("in the place of seen"));
}

TEST_CASE("A model of the wrong length is refused and leaves the engine usable") {
  const TemporaryFolder folder;
  const auto engine = make_loaded(save_dense(folder.file("net.pt"), 4, 3, 2), {4});
  const std::vector<float> short_by_one(engine->layout().size() - 1);
  CHECK_FALSE(engine->load(encode_fp32(short_by_one).span()).ok());
  const Batch batch = random_batch(2, 4, 2, 1);
  CHECK(std::isfinite(engine->evaluate(batch.inputs, batch.labels).loss_sum));
}

TEST_CASE("A step that libtorch refuses gives NaN and says why") {
  const TemporaryFolder folder;
  const auto engine = make_loaded(save_next_token(folder.file("net.pt"), 6), {3});
  engine->begin_training({}, RandomStream(1, RandomPurpose::kTraining));
  const std::vector<float> tokens{1, 2, 77};  // there are six symbols
  const std::vector<std::int32_t> labels{1, 2, 3};
  CHECK(std::isnan(engine->train_step(tokens, labels, 0.1f, 0)));
  CHECK_THAT(std::string(engine->problem()), Contains("the TorchScript file") && !Contains(".pt") &&
                                                 Contains("index out of range"));
  engine->begin_training({}, RandomStream(1, RandomPurpose::kTraining));
  CHECK(engine->problem().empty());
}
