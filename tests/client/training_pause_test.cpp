#include <time.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "training_fixture.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

namespace {

using namespace std::chrono_literals;

/// A training on a thread of its own, held up and let go from this one.
class HeldTraining {
 public:
  explicit HeldTraining(const Fixture& fixture) : fixture_(fixture) {}

  TrainingControl control() {
    TrainingControl control;
    control.cancelled = &cancelled_;
    control.paused = &paused_;
    control.steps_done = &steps_;
    return control;
  }
  void start() {
    thread_ = std::thread([this] {
      result_.emplace(fixture_.train(control()));
      ended_ = true;
    });
  }
  /// From within step `step`: training rests before the next.
  void pause() { paused_ = true; }
  void resume() {
    paused_ = false;
    paused_.notify_all();
  }
  void cancel() {
    cancelled_ = true;
    resume();
  }
  bool ended() const { return ended_; }
  std::uint32_t steps() const { return steps_; }
  Result<TrainedUpdate> join() {
    thread_.join();
    return std::move(*result_);
  }
  /// Processor time of the training's thread.
  std::chrono::nanoseconds computed() {
    clockid_t clock{};
    REQUIRE(::pthread_getcpuclockid(thread_.native_handle(), &clock) == 0);
    timespec time{};
    REQUIRE(::clock_gettime(clock, &time) == 0);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  }

 private:
  const Fixture& fixture_;
  std::atomic<bool> cancelled_{false}, paused_{false}, ended_{false};
  std::atomic<std::uint32_t> steps_{0};
  std::optional<Result<TrainedUpdate>> result_;
  std::thread thread_;
};

/// Long enough for several of a small training's steps.
constexpr auto kMoment = 30ms;

bool waits_until(const std::function<bool()>& true_now) {
  for (int i = 0; i < 5000 && !true_now(); ++i) std::this_thread::sleep_for(1ms);
  return true_now();
}

}  // namespace

TEST_CASE("a paused training makes no step and takes no processor time") {
  Fixture f;
  HeldTraining training(f);
  training.pause();
  training.start();
  std::this_thread::sleep_for(kMoment);
  const auto computed = training.computed();
  const std::uint32_t steps = training.steps();
  std::this_thread::sleep_for(4 * kMoment);
  CHECK(training.steps() == steps);
  CHECK(steps == 0);
  CHECK_FALSE(training.ended());
  CHECK(training.computed() - computed < 5ms);
  training.resume();
  CHECK(training.join().ok());
}

TEST_CASE("an update is the same to the bit however often its training rested") {
  Fixture f;
  f.task.plan.local_epochs = 2000;  // enough steps to be held up among them
  const auto undisturbed = f.train();
  REQUIRE(undisturbed.ok());
  HeldTraining training(f);
  training.start();
  std::uint32_t rests = 0;
  for (std::uint32_t seen = 0; !training.ended();) {
    training.pause();
    std::this_thread::sleep_for(1ms);
    if (training.steps() > seen && !training.ended()) ++rests;
    seen = training.steps();
    training.resume();
    std::this_thread::sleep_for(200us);
  }
  const auto disturbed = training.join();
  REQUIRE(disturbed.ok());
  CHECK(rests > 0);
  CHECK(disturbed->digest == undisturbed->digest);
  CHECK(disturbed->steps == undisturbed->steps);
  CHECK(disturbed->train_loss == undisturbed->train_loss);
}

TEST_CASE("a training that rests can be cancelled") {
  Fixture f;
  f.task.plan.local_epochs = 1000000;
  HeldTraining training(f);
  training.start();
  REQUIRE(waits_until([&] { return training.steps() > 0; }));
  training.pause();
  std::this_thread::sleep_for(kMoment);
  REQUIRE_FALSE(training.ended());
  training.cancel();
  const auto result = training.join();
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().message.find("training was cancelled in epoch") == 0);
}

TEST_CASE("the pass before the first step rests and ends likewise") {
  Fixture f;
  f.task.plan.strategy = "qfedavg";
  f.task.plan.strategy_parameters = {{"q", 1.0}};
  HeldTraining training(f);
  training.pause();
  training.start();
  std::this_thread::sleep_for(kMoment);
  CHECK_FALSE(training.ended());
  training.cancel();
  const auto result = training.join();
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().message == "training was cancelled before its first step");
}

TEST_CASE("a trainer that frees what it used gives the same update in every round") {
  Fixture f;
  const auto plain = f.train();
  REQUIRE(plain.ok());
  SgdTrainer trainer(f.data, f.registry);
  trainer.use_examples(f.indices);
  trainer.free_after_training(true);
  for (int round = 0; round < 3; ++round) {
    const auto freed = trainer.train(f.task, {});
    REQUIRE(freed.ok());
    CHECK(freed->digest == plain->digest);
  }
  trainer.release();
  CHECK(trainer.train(f.task, {})->digest == plain->digest);
}

TEST_CASE("every precision trains to the same update from shared bytes and after freeing") {
  const std::string precision = GENERATE("fp32", "bf16", "qat-int8", "int8");
  const std::string compressor = precision == "int8" ? "int8" : GENERATE("fp32", "bf16", "int8");
  INFO(precision << " " << compressor);
  Fixture f;
  f.task.plan.precision = precision;
  f.task.plan.compressor = compressor;
  const auto network = *models::make_network(f.task.plan.model, precision);
  f.initial = ParameterVector(network.num_parameters());
  network.initialise(f.initial.span(), RandomStream(kSeed, RandomPurpose::kModelInitialisation));
  f.task.model = encode(*model_encoding(precision), network.layout(), f.initial.span());
  const auto plain = f.train();
  INFO((plain.ok() ? "" : plain.error().message));
  REQUIRE(plain.ok());
  SgdTrainer trainer(f.data, f.registry);
  trainer.use_examples(f.indices);
  trainer.free_after_training(true);
  const auto freed = trainer.train(f.task, {});
  REQUIRE(freed.ok());
  CHECK(freed->digest == plain->digest);
  // Bytes that floats cannot be read from in place.
  std::vector<std::byte> odd(f.task.model.size() + 1);
  std::ranges::copy(f.task.model.span(), odd.begin() + 1);
  const std::size_t size = f.task.model.size();
  f.task.model = SharedBytes(std::move(odd)).slice(1, size);
  const auto unaligned = f.train();
  REQUIRE(unaligned.ok());
  CHECK(unaligned->digest == plain->digest);
}
