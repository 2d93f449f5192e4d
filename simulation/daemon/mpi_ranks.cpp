#include "simulation/daemon/mpi_ranks.hpp"

#include <dlfcn.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "simulation/mpi/mpi_module.hpp"

namespace covey {
namespace {

namespace fs = std::filesystem;

constexpr char kModuleName[] = "libcovey_mpi.so";

std::optional<std::uint32_t> number_from_environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  char* end = nullptr;
  const unsigned long value = std::strtoul(text, &end, 10);
  if (end == text || *end != '\0' || value > UINT32_MAX) return std::nullopt;
  return static_cast<std::uint32_t>(value);
}

/// Beside the program, as it is built, or in the library folder, as it is installed.
Result<fs::path> find_module(const MpiLaunch& launch) {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  const fs::path beside = program / kModuleName;
  const fs::path installed = program.parent_path() / COVEY_MODULE_FOLDER / kModuleName;
  for (const fs::path& path : {beside, installed}) {
    if (fs::exists(path, error)) return path;
  }
  return failed("mpirun started this as one of " + std::to_string(launch.size) +
                " ranks, and this build of covey has no MPI (no " + beside.string() + ", no " +
                installed.string() +
                "): run scripts/install_dependencies --mpi and build again, or start covey without "
                "mpirun");
}

}  // namespace

std::optional<MpiLaunch> mpi_launch() {
  // Open MPI's mpirun, then that of MPICH and its kin.
  for (const char* prefix : {"OMPI_COMM_WORLD_", "PMI_"}) {
    const std::string name = prefix;
    const auto size = number_from_environment((name + "SIZE").c_str());
    const auto rank = number_from_environment((name + "RANK").c_str());
    if (!size || !rank || *size < 2) continue;
    const auto local_rank = number_from_environment((name + "LOCAL_RANK").c_str());
    const auto local_size = number_from_environment((name + "LOCAL_SIZE").c_str());
    return MpiLaunch{*rank, *size, local_rank.value_or(*rank), local_size.value_or(*size)};
  }
  return std::nullopt;
}

bool trains_for_rank_0(std::string_view command) {
  const auto launch = mpi_launch();
  return command == "simulate" && launch && launch->rank > 0;
}

Result<std::unique_ptr<simulation::RankTransport>> join_ranks(const MpiLaunch& launch) {
  COVEY_ASSIGN(const fs::path path, find_module(launch));
  // Stays loaded: MPI leaves threads and handlers behind.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    return failed("cannot load " + path.string() + ": " +
                  (reason == nullptr ? "no reason given" : reason));
  }
  auto* function = reinterpret_cast<mpi::MpiModuleFunction*>(dlsym(library, mpi::kMpiModuleSymbol));
  const mpi::MpiModule* module = function == nullptr ? nullptr : function();
  if (module == nullptr || module->interface != mpi::kMpiModuleInterface) {
    return failed(path.string() + " belongs to another build of covey; build both together");
  }
  COVEY_ASSIGN(auto transport, module->join());
  if (transport->size() != launch.size || transport->rank() != launch.rank) {
    return failed("mpirun started " + std::to_string(launch.size) + " ranks, and " + path.string() +
                  " finds " + std::to_string(transport->size()) +
                  ": start covey with the mpirun of the MPI that it was built with");
  }
  return transport;
}

unsigned usable_processors() {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  if (sched_getaffinity(0, sizeof usable, &usable) == 0) {
    return static_cast<unsigned>(std::max(1, CPU_COUNT(&usable)));
  }
  return std::max(1U, std::thread::hardware_concurrency());
}

unsigned default_threads(const std::optional<MpiLaunch>& launch) {
  const unsigned usable = usable_processors();
  const unsigned all = std::max(usable, std::thread::hardware_concurrency());
  if (!launch || usable < all) return usable;  // bound: the others have processors of their own
  return std::max(1U, all / std::max(1U, launch->local_size));
}

}  // namespace covey
