#include "device_mixes.hpp"

#include <string>

namespace covey::simulation {
namespace {

// What is published, and what is our choice:
//
// Speed. A core's single-precision matrix products by NEON, as Eigen computes them: 4.2 GFLOP/s on
// a Cortex-A53 at 1.44 GHz, 9.6 on a Cortex-A57 at 1.82 GHz, 14.2 on a Kryo of 2016 at 2.15 GHz
// (the gemmlowp project's table of kernels on phones). A Raspberry Pi 4 solves Linpack in double
// precision at 8 GFLOP/s with its four cores (Feiereisen 2022); of the same sysbench a Pi 3B+, 4
// and 5 do 2459, 5901 and 10945 events/s (ratios 1 : 2.4 : 4.5, leoncode.co.uk), a Zero 2 W nearly
// as much as a 3B+ (Hackaday 2021). Our choice: training sustains about half of what products alone
// reach, on two big cores of a phone, which has to stay cool, or all four of a board.
//
// Links. LTE had medians of 13 Mbit/s down and 6 up (Huang et al. 2012, MobiSys), 5G 166 and 21
// (Ookla, third quarter of 2021); latency of mobile networks was 28 ms (Ookla, 2022). Our choice:
// ranges around these, for a time at home on Wi-Fi too; boards on home networks.
//
// Energy. A phone's battery holds 3000 to 5000 mAh at 3.85 V: 11 to 19 Wh. LTE takes up to 23 times
// the energy of Wi-Fi (Huang et al. 2012). Our choice: watts of a processor that stays cool, and
// joules a megabyte between the two networks.
//
// Memory for training is our choice: a quarter of what the device has, half of a board's.
DeviceClassConfig phone(std::string_view name, double share) {
  DeviceClassConfig phone;
  phone.name = name;
  phone.share = share;
  phone.availability = "nightly";
  return phone;
}

// Shares are our choice; in traces of 136,000 phones a few models are fast and most are years old
// (Yang et al. 2021, "Characterizing impacts of heterogeneity in federated learning upon
// large-scale smartphone data", WWW).
std::vector<DeviceClassConfig> phones() {
  DeviceClassConfig high = phone("high-end", 0.25);
  high.latency_ms_min = 10, high.latency_ms_max = 40;
  high.up_mbit_s_min = 10, high.up_mbit_s_max = 60;
  high.down_mbit_s_min = 50, high.down_mbit_s_max = 400;
  high.gflops_min = 12, high.gflops_max = 30;
  high.memory_mib_min = 2048, high.memory_mib_max = 3072;
  high.battery_wh = 18, high.compute_watts = 4, high.radio_joules_per_mb = 2;

  DeviceClassConfig mid = phone("mid-range", 0.45);
  mid.latency_ms_min = 15, mid.latency_ms_max = 60;
  mid.up_mbit_s_min = 4, mid.up_mbit_s_max = 30;
  mid.down_mbit_s_min = 13, mid.down_mbit_s_max = 150;
  mid.gflops_min = 5, mid.gflops_max = 14;
  mid.memory_mib_min = 768, mid.memory_mib_max = 1536;
  mid.battery_wh = 17, mid.compute_watts = 3, mid.radio_joules_per_mb = 3;

  DeviceClassConfig low = phone("low-end", 0.3);
  low.latency_ms_min = 30, low.latency_ms_max = 150;
  low.up_mbit_s_min = 1, low.up_mbit_s_max = 8;
  low.down_mbit_s_min = 4, low.down_mbit_s_max = 30;
  low.gflops_min = 1.5, low.gflops_max = 5;
  low.memory_mib_min = 192, low.memory_mib_max = 512;
  low.battery_wh = 12, low.compute_watts = 2, low.radio_joules_per_mb = 5;
  return {high, mid, low};
}

DeviceClassConfig board(std::string_view name, double share, double gflops, double watts) {
  DeviceClassConfig board;
  board.name = name;
  board.share = share;
  board.availability = "flaky";
  board.latency_ms_min = 5, board.latency_ms_max = 40;
  board.gflops_min = 0.7 * gflops, board.gflops_max = 1.2 * gflops;  // by cooling and clock
  board.compute_watts = watts;
  board.radio_joules_per_mb = 0.2;  // Wi-Fi or a cable
  return board;
}

// Boards by what their memory's and network's sizes are: Zero 2 W 0.5 GB and 2.4 GHz Wi-Fi, 3 1 GB,
// 4 and 5 2 to 8 GB and Gigabit Ethernet behind a home's line. Watts: with all cores at work, our
// choice below the power supplies that are recommended.
std::vector<DeviceClassConfig> boards() {
  DeviceClassConfig zero = board("pi-zero-2", 0.2, 2, 2.5);
  zero.up_mbit_s_min = 2, zero.up_mbit_s_max = 20;
  zero.down_mbit_s_min = 5, zero.down_mbit_s_max = 30;
  zero.memory_mib_min = 192, zero.memory_mib_max = 256;

  DeviceClassConfig three = board("pi-3", 0.25, 2.5, 4.5);
  three.up_mbit_s_min = 4, three.up_mbit_s_max = 40;
  three.down_mbit_s_min = 10, three.down_mbit_s_max = 80;
  three.memory_mib_min = 384, three.memory_mib_max = 512;

  DeviceClassConfig four = board("pi-4", 0.35, 6, 6);
  four.up_mbit_s_min = 5, four.up_mbit_s_max = 100;
  four.down_mbit_s_min = 20, four.down_mbit_s_max = 250;
  four.memory_mib_min = 1024, four.memory_mib_max = 4096;

  DeviceClassConfig five = board("pi-5", 0.2, 12, 9);
  five.up_mbit_s_min = 5, five.up_mbit_s_max = 100;
  five.down_mbit_s_min = 20, five.down_mbit_s_max = 250;
  five.memory_mib_min = 2048, five.memory_mib_max = 4096;
  return {zero, three, four, five};
}

// Our choice of what goes together in one fleet.
constexpr double kPhonesOfMixed = 0.7;

}  // namespace

Result<std::vector<DeviceClassConfig>> device_mix(std::string_view name) {
  if (name == "phones") return phones();
  if (name == "raspberry-pi") return boards();
  if (name != "mixed") {
    return invalid_argument("fleet.mix: \"" + std::string(name) +
                            "\" is not one of phones, raspberry-pi, mixed");
  }
  std::vector<DeviceClassConfig> all = phones();
  for (DeviceClassConfig& one : all) one.share *= kPhonesOfMixed;
  for (DeviceClassConfig& one : boards()) {
    one.share *= 1 - kPhonesOfMixed;
    all.push_back(one);
  }
  return all;
}

}  // namespace covey::simulation
