#include <boost/mpi/communicator.hpp>
#include <boost/mpi/environment.hpp>
#include <boost/mpi/exception.hpp>
#include <boost/mpi/request.hpp>
#include <boost/mpi/status.hpp>
#include <chrono>
#include <climits>
#include <mutex>
#include <thread>
#include <utility>

#include "mpi_module.hpp"

namespace covey::mpi {
namespace {

namespace boost_mpi = boost::mpi;
using GiveUp = std::function<bool()>;
using Bytes = std::vector<std::byte>;

// A transfer in pieces goes on only while both ends look after it: without a pause for the time
// that 20 MB take at 1 GB/s, then now and then, since the other end is busy with something else.
constexpr auto kEager = std::chrono::milliseconds(20);
constexpr auto kNowAndThen = std::chrono::microseconds(100);

Error error_of(const boost_mpi::exception& problem) {
  return failed(std::string("MPI: ") + problem.what());
}

/// A transfer under way: the bytes must stay where they are until MPI is done with them.
struct Transfer {
  Bytes bytes;
  boost_mpi::request request;
};

/// Every call to MPI is made under one lock and returns at once: no thread keeps another from it,
/// and MPI need not be able to serve many threads at a time, which not every build of it can.
class MpiTransport : public simulation::RankTransport {
 public:
  explicit MpiTransport(std::unique_ptr<boost_mpi::environment> environment)
      : environment_(std::move(environment)) {
    MPI_Comm_set_errhandler(MPI_Comm(world_), MPI_ERRORS_RETURN);
  }
  ~MpiTransport() override { end(false); }

  std::uint32_t rank() const override { return static_cast<std::uint32_t>(world_.rank()); }
  std::uint32_t size() const override { return static_cast<std::uint32_t>(world_.size()); }

  Result<void> send(std::uint32_t to, int channel, Bytes message, const GiveUp& give_up) override {
    if (message.size() > INT_MAX) {
      return failed("a message of " + std::to_string(message.size()) +
                    " bytes is more than MPI sends at once");
    }
    auto transfer = std::make_unique<Transfer>();
    transfer->bytes = std::move(message);
    try {
      const std::lock_guard lock(mutex_);
      transfer->request =
          world_.isend(static_cast<int>(to), channel,
                       reinterpret_cast<const char*>(transfer->bytes.data()), size_of(*transfer));
    } catch (const boost_mpi::exception& problem) {
      return error_of(problem);
    }
    const auto sent = complete(std::move(transfer), give_up);
    if (!sent.ok()) return sent.error();
    return {};
  }

  Result<std::optional<Bytes>> receive(std::uint32_t from, int channel,
                                       const GiveUp& give_up) override {
    auto transfer = std::make_unique<Transfer>();
    try {
      const std::lock_guard lock(mutex_);
      const auto status = world_.iprobe(static_cast<int>(from), channel);
      if (!status) return std::optional<Bytes>();
      transfer->bytes.resize(static_cast<std::size_t>(status->count<char>().value_or(0)));
      transfer->request =
          world_.irecv(static_cast<int>(from), channel,
                       reinterpret_cast<char*>(transfer->bytes.data()), size_of(*transfer));
    } catch (const boost_mpi::exception& problem) {
      return error_of(problem);
    }
    COVEY_ASSIGN(Bytes bytes, complete(std::move(transfer), give_up));
    return std::optional<Bytes>(std::move(bytes));
  }

  void end(bool orderly) override {
    const std::lock_guard lock(mutex_);
    if (!environment_) return;
    if (orderly) {
      environment_.reset();  // MPI_Finalize: waits for all ranks
    } else {
      // Finalising would wait for ranks that are not there.
      static_cast<void>(environment_.release());
    }
  }

 private:
  static int size_of(const Transfer& transfer) { return static_cast<int>(transfer.bytes.size()); }

  /// The transfer's bytes, when it is over.
  Result<Bytes> complete(std::unique_ptr<Transfer> transfer, const GiveUp& give_up);
  bool is_over(Transfer& transfer) {
    const std::lock_guard lock(mutex_);
    return transfer.request.test().has_value();
  }

  std::mutex mutex_;
  std::unique_ptr<boost_mpi::environment> environment_;
  boost_mpi::communicator world_;
};

Result<Bytes> MpiTransport::complete(std::unique_ptr<Transfer> transfer, const GiveUp& give_up) {
  const auto began = std::chrono::steady_clock::now();
  try {
    while (!is_over(*transfer)) {
      if (give_up()) {
        // MPI may still read or write the bytes: they stay, as the process is about to end.
        static_cast<void>(transfer.release());
        return failed("a message was given up");
      }
      if (std::chrono::steady_clock::now() - began < kEager) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(kNowAndThen);
      }
    }
  } catch (const boost_mpi::exception& problem) {
    static_cast<void>(transfer.release());
    return error_of(problem);
  }
  return std::move(transfer->bytes);
}

Result<std::unique_ptr<simulation::RankTransport>> join() {
  try {
    // Exceptions stop here and are no reason to abort the other ranks.
    auto environment =
        std::make_unique<boost_mpi::environment>(boost_mpi::threading::serialized, false);
    if (environment->thread_level() < boost_mpi::threading::serialized) {
      return failed("this MPI cannot be used from more than one thread");
    }
    return std::unique_ptr<simulation::RankTransport>(
        std::make_unique<MpiTransport>(std::move(environment)));
  } catch (const boost_mpi::exception& problem) {
    return error_of(problem);
  }
}

}  // namespace
}  // namespace covey::mpi

extern "C" __attribute__((visibility("default"))) const covey::mpi::MpiModule* covey_mpi_module() {
  static const covey::mpi::MpiModule module{.join = &covey::mpi::join};
  return &module;
}
