#include "bench_secagg_command.hpp"

#include <fmt/format.h>

#include <memory>
#include <string>

#include "privacy/masking/mask_kernels.hpp"
#include "secagg_bench.hpp"
#include "simulation/daemon/command_line.hpp"

namespace covey {
namespace {

struct SecAggOptions {
  SecAggBench bench;
  std::string graph = "k";
  std::string dropout_at = "sharing";
  std::string threat = std::string(to_string(ThreatModel::kHonestButCurious));
  std::string cipher = std::string(to_string(MaskCipher::kAes128Ctr));
  bool json = false;
};

/// Bytes that the same device sends in plain: single precision, and fixed point of b bits without
/// gaps.
double plain_bytes(const SecAggBench& bench) { return 4 * static_cast<double>(bench.dimension); }
double packed_bytes(const SecAggBench& bench) {
  return static_cast<double>(bench.dimension) * bench.plan.bits / 8;
}

void row(const char* name, double value, const char* unit, const std::string& note = "") {
  fmt::print("  {:<34}{:>12.4g} {:<3} {}\n", name, value, unit, note);
}

void print_server(const SecAggBench& bench, const SecAggBenchResult& result, double floor_s) {
  const SecAggServerTimes& server = result.server;
  const auto& figures = server.unmask;
  fmt::print("\nServer, wall time on {} thread{}\n", bench.threads, bench.threads == 1 ? "" : "s");
  row("advertise keys, draw the graph", server.advertise, "s");
  row("share keys", server.share, "s");
  row("add masked updates", server.sum, "s",
      human_bytes(static_cast<double>(result.masked_bytes)) + " each");
  row("collect shares", server.collect, "s");
  row("unmask: reconstruct secrets", figures.reconstruct_s, "s");
  row("unmask: agree on keys", figures.agree_s, "s",
      fmt::format("{} X25519 agreements", figures.key_agreements));
  row("unmask: take masks off", figures.mask_s, "s",
      human_bytes(static_cast<double>(figures.keystream_bytes)) + " of keystream");
  row("unmask, all", server.unmask_s(), "s");
  row("floor", floor_s, "s",
      fmt::format("{:.1f} GB/s of keystream, {:.1f} us an agreement, measured just before",
                  result.floor.keystream_gb_per_s, result.floor.x25519_us));
  row("unmask / floor", server.unmask_s() / floor_s, "",
      fmt::format("{:.2f} by CPU time, {:.4g} s over the threads",
                  server.unmask_cpu / bench.threads / floor_s, server.unmask_cpu / bench.threads));
}

void print_device(const SecAggBench& bench, const SecAggBenchResult& result) {
  const SecAggDeviceTimes& device = result.device;
  fmt::print("\nA device, CPU time, median of {}\n", result.device_sample);
  row("make keys", device.advertise, "ms");
  row("share secrets", device.share, "ms");
  row("open shares, agree on masks", device.agree, "ms");
  row("encode the update", device.encode, "ms");
  row("mask it", device.mask, "ms");
  row("unmask", device.unmask, "ms");
  row("all", device.total, "ms");
  fmt::print("\nA device's bytes: contents of its messages, without framing\n");
  row("up", result.bytes_up, "B",
      fmt::format("{} masked update, {:.2f} x of 32-bit floats, {:.2f} x of {} bits packed",
                  human_bytes(static_cast<double>(result.masked_bytes)),
                  result.bytes_up / plain_bytes(bench), result.bytes_up / packed_bytes(bench),
                  bench.plan.bits));
  row("down, beside the model", result.bytes_down, "B");
}

nlohmann::json server_json(const SecAggServerTimes& server) {
  return {{"advertise_s", server.advertise},
          {"share_s", server.share},
          {"sum_s", server.sum},
          {"collect_s", server.collect},
          {"reconstruct_s", server.unmask.reconstruct_s},
          {"agree_s", server.unmask.agree_s},
          {"mask_s", server.unmask.mask_s},
          {"unmask_s", server.unmask_s()},
          {"unmask_cpu_s", server.unmask_cpu}};
}

nlohmann::json device_json(const SecAggBenchResult& result) {
  const SecAggDeviceTimes& device = result.device;
  return {{"advertise_ms", device.advertise}, {"share_ms", device.share},
          {"agree_ms", device.agree},         {"encode_ms", device.encode},
          {"mask_ms", device.mask},           {"unmask_ms", device.unmask},
          {"total_ms", device.total},         {"sample", result.device_sample}};
}

nlohmann::json result_json(const SecAggOptions& options, const SecAggBenchResult& result,
                           double floor_s, std::string_view kernel) {
  const SecAggBench& bench = options.bench;
  return {{"clients", bench.clients},
          {"dim", bench.dimension},
          {"graph", result.neighbourhood.complete() ? "complete" : "k"},
          {"degree", result.neighbourhood.degree},
          {"threshold", result.neighbourhood.threshold},
          {"threat", options.threat},
          {"cipher", options.cipher},
          {"kernel", kernel},
          {"bits", bench.plan.bits},
          {"sum_bits", result.sum_bits},
          {"dropout", bench.dropout},
          {"dropout_at", options.dropout_at},
          {"dropped", result.dropped},
          {"survivors", result.survivors},
          {"threads", bench.threads},
          {"seed", bench.seed},
          {"server", server_json(result.server)},
          {"device", device_json(result)},
          {"bytes_up", result.bytes_up},
          {"bytes_down", result.bytes_down},
          {"masked_bytes", result.masked_bytes},
          {"expansion_32bit", result.bytes_up / plain_bytes(bench)},
          {"expansion_packed", result.bytes_up / packed_bytes(bench)},
          {"keystream_bytes", result.server.unmask.keystream_bytes},
          {"key_agreements", result.server.unmask.key_agreements},
          {"keystream_gb_per_s", result.floor.keystream_gb_per_s},
          {"x25519_us", result.floor.x25519_us},
          {"floor_s", floor_s},
          {"unmask_over_floor", result.server.unmask_s() / floor_s},
          {"unmask_cpu_over_floor", result.server.unmask_cpu / bench.threads / floor_s},
          {"coordinates_checked", result.coordinates_checked},
          {"sums_checked", result.coordinates_checked == bench.dimension},
          {"peak_rss_mib", peak_rss_mib()}};
}

Result<int> bench_secagg(SecAggOptions options) {
  SecAggBench& bench = options.bench;
  bench.plan.complete_graph = options.graph == "complete";
  bench.after_masking = options.dropout_at == "masking";
  bench.plan.threat_model = options.threat == to_string(ThreatModel::kMaliciousServer)
                                ? ThreatModel::kMaliciousServer
                                : ThreatModel::kHonestButCurious;
  bench.plan.cipher = options.cipher == to_string(MaskCipher::kChaCha20) ? MaskCipher::kChaCha20
                                                                         : MaskCipher::kAes128Ctr;
  COVEY_ASSIGN(const auto result, run_secagg_bench(bench));
  const auto& figures = result.server.unmask;
  const double floor_s =
      result.floor.seconds(figures.keystream_bytes, figures.key_agreements, bench.threads);
  const auto kernel =
      privacy::masking::to_string(privacy::masking::selected_kernel(bench.plan.cipher));
  fmt::print("{} devices, {} coordinates of {} bits ({} in the sum), {} masks ({})\n",
             bench.clients, bench.dimension, bench.plan.bits, result.sum_bits, options.cipher,
             kernel);
  fmt::print("{}: {} neighbours, {} shares reconstruct; {} devices gone after {}, {} in the sum\n",
             options.threat, result.neighbourhood.degree, result.neighbourhood.threshold,
             result.dropped, options.dropout_at, result.survivors);
  print_server(bench, result, floor_s);
  print_device(bench, result);
  fmt::print("\n{} of {} coordinates of the sum compared with the plain sum: equal\n",
             result.coordinates_checked, bench.dimension);
  if (options.json) print_json(result_json(options, result, floor_s, kernel));
  return kExitDone;
}

void add_options(CLI::App& command, SecAggOptions& options) {
  SecAggBench& bench = options.bench;
  command.add_option("--clients", bench.clients, "Devices that advertise keys")
      ->check(CLI::Range(2u, 100'000u))
      ->capture_default_str();
  command.add_option("--dim", bench.dimension, "Coordinates of an update")
      ->check(CLI::Range(std::size_t{1}, std::size_t{1'000'000'000}))
      ->capture_default_str();
  command.add_option("--graph", options.graph, "complete, or k: as few neighbours as are safe")
      ->check(CLI::IsMember({"complete", "k"}))
      ->capture_default_str();
  command.add_option("--dropout", bench.dropout, "Share of the devices that vanish")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  command
      .add_option("--dropout-at", options.dropout_at,
                  "They vanish after sharing keys (their masks must be undone) or after masking")
      ->check(CLI::IsMember({"sharing", "masking"}))
      ->capture_default_str();
  command.add_option("--bits", bench.plan.bits, "Bits of one device's coordinate")
      ->check(CLI::Range(2u, 24u))
      ->capture_default_str();
  command.add_option("--threads", bench.threads, "Threads of the server")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  command.add_option("--threat", options.threat, "honest-but-curious or malicious-server")
      ->check(CLI::IsMember({"honest-but-curious", "malicious-server"}))
      ->capture_default_str();
  command.add_option("--cipher", options.cipher, "aes-128-ctr or chacha20")
      ->check(CLI::IsMember({"aes-128-ctr", "chacha20"}))
      ->capture_default_str();
  command
      .add_option("--corruption", bench.plan.corruption,
                  "Share of devices that may work with the server; decides k")
      ->check(CLI::Range(0.0, 0.5))
      ->capture_default_str();
  command.add_option("--seed", bench.seed, "Keys, updates and who vanishes")->capture_default_str();
  command.add_flag("--json", options.json, "Ends standard output with one JSON object");
}

}  // namespace

void add_secagg_bench(CLI::App& bench, std::function<int()>& run) {
  auto options = std::make_shared<SecAggOptions>();
  options->bench.plan.dropout = 0.05;  // the least that a graph is drawn for
  CLI::App* command = bench.add_subcommand(
      "secagg", "One secure sum: the server's work measured whole, the devices' on a sample");
  add_options(*command, *options);
  command->footer(
      "Example: covey bench secagg --clients 500 --dim 100000 --graph k --dropout 0.1 --threads 2");
  command->callback([options, &run] {
    run = [options] {
      const auto code = bench_secagg(*options);
      return code.ok() ? *code : report_error(code.error(), options->json);
    };
  });
}

}  // namespace covey
