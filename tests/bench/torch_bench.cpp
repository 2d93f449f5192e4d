// Training steps per second of libtorch as its users write it (torch::nn modules,
// torch::optim::SGD, autograd), B = 10: what Covey's own engine is compared with.
//
//   torch_bench [--threads N] [--seconds S] [--json] [logistic | 2nn | cnn | char-lstm ...]
//
// --threads: so many threads, each training a model of its own with libtorch limited to one thread,
// which is how a simulation uses the cores.
#include <torch/torch.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::int64_t kBatch = 10;
constexpr std::int64_t kSteps = 80;     // characters of a sequence
constexpr std::int64_t kSymbols = 258;  // 256 bytes, begin, end
constexpr int kBatches = 16;            // gone through again and again
constexpr double kLearningRate = 0.01;

torch::nn::Sequential dense(std::int64_t inputs, std::vector<std::int64_t> hidden,
                            std::int64_t classes) {
  torch::nn::Sequential net;
  for (const std::int64_t units : hidden) {
    net->push_back(torch::nn::Linear(inputs, units));
    net->push_back(torch::nn::ReLU());
    inputs = units;
  }
  net->push_back(torch::nn::Linear(inputs, classes));
  return net;
}

/// McMahan et al. 2017: 5x5x32, pool, 5x5x64, pool, dense 512.
torch::nn::Sequential cnn() {
  namespace nn = torch::nn;
  return nn::Sequential(nn::Conv2d(nn::Conv2dOptions(1, 32, 5).padding(2)), nn::ReLU(),
                        nn::MaxPool2d(2), nn::Conv2d(nn::Conv2dOptions(32, 64, 5).padding(2)),
                        nn::ReLU(), nn::MaxPool2d(2), nn::Flatten(), nn::Linear(7 * 7 * 64, 512),
                        nn::ReLU(), nn::Linear(512, 10));
}

/// Two LSTM of 256 on an 8-dimensional embedding. torch::nn::LSTM has no peepholes.
struct CharLstm : torch::nn::Module {
  CharLstm()
      : embedding(register_module("embedding", torch::nn::Embedding(kSymbols, 8))),
        lstm(register_module(
            "lstm",
            torch::nn::LSTM(torch::nn::LSTMOptions(8, 256).num_layers(2).batch_first(true)))),
        output(register_module("output", torch::nn::Linear(256, kSymbols))) {}
  torch::Tensor forward(const torch::Tensor& tokens) {
    const auto states = std::get<0>(lstm->forward(embedding->forward(tokens)));
    return output->forward(states).reshape({-1, kSymbols});
  }
  torch::nn::Embedding embedding;
  torch::nn::LSTM lstm;
  torch::nn::Linear output;
};

struct Batch {
  torch::Tensor inputs, labels;
};

/// Counts steps until `stop`.
template <typename Net, typename MakeBatch>
void train(Net net, MakeBatch make_batch, const std::atomic<bool>& stop,
           std::atomic<std::uint64_t>& steps) {
  torch::set_num_threads(1);
  torch::optim::SGD optimizer(net->parameters(), kLearningRate);
  std::vector<Batch> batches;
  for (int i = 0; i < kBatches; ++i) batches.push_back(make_batch());
  for (std::size_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
    const Batch& batch = batches[i % batches.size()];
    optimizer.zero_grad();
    torch::cross_entropy_loss(net->forward(batch.inputs), batch.labels).backward();
    optimizer.step();
    steps.fetch_add(1, std::memory_order_relaxed);
  }
}

using Case = std::function<void(const std::atomic<bool>&, std::atomic<std::uint64_t>&)>;

Case images_case(std::function<torch::nn::Sequential()> make, std::vector<std::int64_t> shape) {
  return [make, shape](const auto& stop, auto& steps) {
    const auto batch = [&] {
      std::vector<std::int64_t> sizes{kBatch};
      sizes.insert(sizes.end(), shape.begin(), shape.end());
      return Batch{torch::rand(sizes), torch::randint(10, {kBatch}, torch::kLong)};
    };
    train(make(), batch, stop, steps);
  };
}

void lstm_case(const std::atomic<bool>& stop, std::atomic<std::uint64_t>& steps) {
  const auto batch = [] {
    return Batch{torch::randint(kSymbols, {kBatch, kSteps}, torch::kLong),
                 torch::randint(kSymbols, {kBatch * kSteps}, torch::kLong)};
  };
  train(std::make_shared<CharLstm>(), batch, stop, steps);
}

const std::map<std::string, Case>& cases() {
  static const std::map<std::string, Case> all = {
      {"logistic", images_case([] { return dense(60, {}, 10); }, {60})},
      {"2nn", images_case(
                  [] {
                    return dense(784, {200, 200}, 10);
                  },
                  {784})},
      {"cnn", images_case(cnn, {1, 28, 28})},
      {"char-lstm", lstm_case},
  };
  return all;
}

double steps_per_second(const Case& measured, unsigned threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> steps{0};
  std::vector<std::jthread> workers;
  for (unsigned i = 0; i < threads; ++i) workers.emplace_back([&] { measured(stop, steps); });
  // The first steps allocate and choose kernels.
  while (steps.load() < 2 * threads) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const std::uint64_t first = steps.load();
  const auto began = Clock::now();
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  const std::uint64_t done = steps.load() - first;
  const double elapsed = std::chrono::duration<double>(Clock::now() - began).count();
  stop = true;
  return static_cast<double>(done) / elapsed;
}

int usage() {
  std::fputs(
      "usage: torch_bench [--threads N] [--seconds S] [--json] [MODEL...]\n"
      "models: logistic, 2nn, cnn, char-lstm\n",
      stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  unsigned threads = 1;
  double seconds = 3;
  bool json = false;
  std::vector<std::string> models;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--threads" && i + 1 < argc) {
      threads = static_cast<unsigned>(std::atoi(argv[++i]));
    } else if (argument == "--seconds" && i + 1 < argc) {
      seconds = std::atof(argv[++i]);
    } else if (argument == "--json") {
      json = true;
    } else if (cases().contains(argument)) {
      models.push_back(argument);
    } else {
      return usage();
    }
  }
  if (threads == 0 || seconds <= 0) return usage();
  if (models.empty()) models = {"logistic", "2nn", "cnn", "char-lstm"};
  torch::manual_seed(1);
  std::string object;
  for (const std::string& model : models) {
    const double rate = steps_per_second(cases().at(model), threads, seconds);
    if (!json) std::printf("%-10s %10.1f steps/s\n", model.c_str(), rate);
    object += ", \"" + model + "\": " + std::to_string(rate);
  }
  if (json) std::printf("{\"threads\": %u%s}\n", threads, object.c_str());
}
