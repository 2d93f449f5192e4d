#include "training_rank.hpp"

#include <unistd.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "host_name.hpp"

namespace covey::simulation {
namespace {

constexpr std::chrono::milliseconds kControlInterval{5};

/// The models that rank 0 sent and has not dropped, by serial. A job may come before the model that
/// another worker's job brings.
class ModelStore {
 public:
  void add(std::uint64_t serial, SharedBytes model) {
    const std::lock_guard lock(mutex_);
    models_.insert_or_assign(serial, std::move(model));
    came_.notify_all();
  }
  void drop(const std::vector<std::uint64_t>& serials) {
    const std::lock_guard lock(mutex_);
    for (const std::uint64_t serial : serials) models_.erase(serial);
  }
  /// Waits for it; nothing: the end came first.
  std::optional<SharedBytes> get(std::uint64_t serial) {
    std::unique_lock lock(mutex_);
    came_.wait(lock, [&] { return ending_ || models_.contains(serial); });
    const auto found = models_.find(serial);
    if (found == models_.end()) return std::nullopt;
    return found->second;
  }
  void end() {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    came_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::map<std::uint64_t, SharedBytes> models_;
  bool ending_ = false;
};

/// Workers that have nothing to do.
class FreeWorkers {
 public:
  explicit FreeWorkers(std::vector<std::unique_ptr<TrainingWorker>> workers)
      : workers_(std::move(workers)) {}
  /// Waits for one.
  std::unique_ptr<TrainingWorker> take() {
    std::unique_lock lock(mutex_);
    back_.wait(lock, [&] { return !workers_.empty(); });
    auto worker = std::move(workers_.back());
    workers_.pop_back();
    return worker;
  }
  void put_back(std::unique_ptr<TrainingWorker> worker) {
    const std::lock_guard lock(mutex_);
    workers_.push_back(std::move(worker));
    back_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable back_;
  std::vector<std::unique_ptr<TrainingWorker>> workers_;
};

/// Takes jobs from one channel, one at a time, to whichever worker is free.
class Station {
 public:
  Station(RankTransport& transport, ModelStore& models, const std::atomic<bool>& ending,
          std::size_t number, FreeWorkers& workers)
      : transport_(transport),
        models_(models),
        ending_(ending),
        channel_(channel_of_worker(number)),
        workers_(workers),
        thread_([this] { work(); }) {}
  ~Station() {
    cancel(UINT64_MAX);
    thread_.join();
  }
  Station(const Station&) = delete;
  Station& operator=(const Station&) = delete;

  /// Jobs up to this number: it may be told before the job arrives.
  void cancel(std::uint64_t job) {
    const std::lock_guard lock(mutex_);
    cancelled_up_to_ = std::max(cancelled_up_to_, job);
    if (current_ <= cancelled_up_to_) cancelled_ = true;
  }

 private:
  void work() {
    LookInterval interval;
    while (!ending_) {
      const auto received = transport_.receive(0, channel_, [this] { return ending_.load(); });
      if (!received.ok()) return;  // rank 0 is gone, which ends this process soon
      if (received->has_value()) {
        if (!answer(std::move(**received))) return;
        interval = {};
      }
      interval.sleep();
    }
  }

  bool answer(std::vector<std::byte> bytes) {
    auto message = decode_job(std::move(bytes));
    if (!message.ok())
      return send(encode_outcome(0, Result<client::TrainedUpdate>(message.error())));
    models_.drop(message->model.dropped);
    client::TrainingTask& task = message->job.task;
    if (message->model.included) models_.add(message->model.serial, task.model);
    auto model = models_.get(message->model.serial);
    if (!model) return false;
    task.model = std::move(*model);
    begin(message->number);
    auto worker = workers_.take();
    auto outcome = worker->compute(message->job, cancelled_);
    workers_.put_back(std::move(worker));
    return send(encode_outcome(message->number, outcome));
  }

  void begin(std::uint64_t job) {
    const std::lock_guard lock(mutex_);
    current_ = job;
    cancelled_ = current_ <= cancelled_up_to_;
  }

  bool send(std::vector<std::byte> bytes) {
    return transport_.send(0, channel_, std::move(bytes), [this] { return ending_.load(); }).ok();
  }

  RankTransport& transport_;
  ModelStore& models_;
  const std::atomic<bool>& ending_;
  const int channel_;
  FreeWorkers& workers_;
  std::mutex mutex_;
  std::uint64_t current_ = 0;
  std::uint64_t cancelled_up_to_ = 0;
  std::atomic<bool> cancelled_{false};
  std::thread thread_;  // last: it uses the others
};

/// Answers rank 0 until it says goodbye, or did not for `patience` after a stop. True: an orderly
/// end.
bool obey(RankTransport& transport, const TrainingRankOptions& options,
          std::vector<std::unique_ptr<Station>>& stations) {
  std::optional<std::chrono::steady_clock::time_point> stopped;
  const auto give_up = [&] {
    if (options.stop == nullptr || !options.stop->load()) return false;
    const auto now = std::chrono::steady_clock::now();
    if (!stopped) stopped = now;
    return now - *stopped > options.patience;
  };
  for (; !give_up(); std::this_thread::sleep_for(kControlInterval)) {
    const auto received = transport.receive(0, kControlChannel, give_up);
    if (!received.ok()) return false;
    if (!received->has_value()) continue;
    const auto message = decode_control(**received);
    if (!message.ok()) return false;
    if (const auto* goodbye = std::get_if<RankGoodbye>(&*message)) return goodbye->orderly;
    if (std::holds_alternative<RankPing>(*message)) {
      if (!transport.send(0, kControlChannel, encode(RankPong{}), give_up).ok()) return false;
    } else if (const auto* cancel = std::get_if<CancelJob>(&*message)) {
      if (cancel->worker < stations.size()) stations[cancel->worker]->cancel(cancel->job);
    }
  }
  return false;
}

}  // namespace

bool serve_training(RankTransport& transport, TrainingRankOptions options,
                    std::vector<std::unique_ptr<TrainingWorker>> workers) {
  options.hello.host = host_name();
  options.hello.process = static_cast<std::uint64_t>(::getpid());
  options.hello.workers = static_cast<std::uint32_t>(workers.size());
  std::atomic<bool> ending{false};
  ModelStore models;
  std::vector<std::unique_ptr<Station>> stations;
  const std::size_t count = workers.empty() ? 0 : workers.size() + 1;  // one job lies ready
  FreeWorkers free_workers(std::move(workers));
  for (std::size_t i = 0; i < count; ++i) {
    stations.push_back(std::make_unique<Station>(transport, models, ending, i, free_workers));
  }
  bool orderly = false;
  if (transport.send(0, kControlChannel, encode(options.hello), [] { return false; }).ok()) {
    orderly = obey(transport, options, stations);
  }
  ending = true;
  models.end();
  stations.clear();
  transport.end(orderly);
  return orderly;
}

}  // namespace covey::simulation
