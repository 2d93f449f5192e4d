#include "bench_keystream_command.hpp"

#include <fmt/format.h>

#include <covey/privacy/mask.hpp>
#include <memory>
#include <string>

#include "bench_floor.hpp"
#include "privacy/masking/mask_kernels.hpp"
#include "simulation/daemon/command_line.hpp"

namespace covey {
namespace {

struct KeystreamOptions {
  std::uint32_t bits = 25;  ///< 16 bits a coordinate, 500 devices
  unsigned threads = 1;
  std::string cipher = std::string(to_string(MaskCipher::kAes128Ctr));
  double seconds = 2;
  bool json = false;
};

Result<int> bench_keystream(const KeystreamOptions& options) {
  const MaskCipher cipher = options.cipher == to_string(MaskCipher::kChaCha20)
                                ? MaskCipher::kChaCha20
                                : MaskCipher::kAes128Ctr;
  const double slice = options.seconds / 5;
  COVEY_ASSIGN(const double core, measure_keystream(cipher, options.bits, 1, slice));
  COVEY_ASSIGN(const double openssl, measure_openssl_aes(slice));
  COVEY_ASSIGN(const double x25519, measure_x25519(1, slice));
  COVEY_ASSIGN(const auto all, measure_floor(cipher, options.bits, options.threads, 2 * slice));
  const auto kernel = privacy::masking::to_string(privacy::masking::selected_kernel(cipher));
  fmt::print("{} masks of {} bits a coordinate, {} kernel\n", options.cipher, options.bits, kernel);
  fmt::print("  {:<44}{:>10.1f} GB/s\n", "keystream, added to the sum, one core", core);
  fmt::print(
      "  {:<44}{:>10.1f} GB/s\n",
      fmt::format("the same on {} thread{}", options.threads, options.threads == 1 ? "" : "s"),
      all.keystream_gb_per_s);
  fmt::print("  {:<44}{:>10.1f} GB/s\n", "OpenSSL AES-128-CTR, not added, one core", openssl);
  fmt::print("  {:<44}{:>10.1f} us\n", "X25519 agreement, one core", x25519);
  fmt::print("  {:<44}{:>10.1f} us\n", "the same with all threads busy", all.x25519_us);
  if (options.json) {
    print_json({{"cipher", options.cipher},
                {"kernel", kernel},
                {"bits", options.bits},
                {"threads", options.threads},
                {"keystream_gb_per_s_core", core},
                {"keystream_gb_per_s", all.keystream_gb_per_s},
                {"openssl_aes128ctr_gb_per_s_core", openssl},
                {"x25519_us_core", x25519},
                {"x25519_us", all.x25519_us}});
  }
  return kExitDone;
}

}  // namespace

void add_keystream_bench(CLI::App& bench, std::function<int()>& run) {
  auto options = std::make_shared<KeystreamOptions>();
  CLI::App* command = bench.add_subcommand(
      "keystream", "The floor of secure aggregation here: masks made and added, key agreements");
  command->add_option("--bits", options->bits, "Bits of a coordinate of the sum")
      ->check(CLI::Range(privacy::PackedFormat::kMinSumBits, privacy::PackedFormat::kMaxSumBits))
      ->capture_default_str();
  command->add_option("--threads", options->threads, "Threads that share the sum")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  command->add_option("--cipher", options->cipher, "aes-128-ctr or chacha20")
      ->check(CLI::IsMember({"aes-128-ctr", "chacha20"}))
      ->capture_default_str();
  command->add_option("--seconds", options->seconds, "How long to measure, in all")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  command->add_flag("--json", options->json, "Ends standard output with one JSON object");
  command->footer("Example: covey bench keystream --threads 2");
  command->callback([options, &run] {
    run = [options] {
      const auto code = bench_keystream(*options);
      return code.ok() ? *code : report_error(code.error(), options->json);
    };
  });
}

}  // namespace covey
