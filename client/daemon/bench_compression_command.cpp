#include "bench_compression_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <covey/compression/compressor.hpp>
#include <covey/random.hpp>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "simulation/daemon/command_line.hpp"

namespace covey {
namespace {

using Clock = std::chrono::steady_clock;

struct CompressionOptions {
  std::uint32_t dimension = 1'663'370;  // the cnn of McMahan et al. 2017
  std::vector<std::string> compressors = {"fp32",
                                          "fp16",
                                          "bf16",
                                          "int8",
                                          "int4",
                                          "int2",
                                          "sign",
                                          "drive",
                                          "eden-1",
                                          "eden-2",
                                          "eden-3",
                                          "eden-4",
                                          "top-k:0.01",
                                          "top-k:0.1",
                                          "random-k:0.01",
                                          "rate-distortion",
                                          "int4+error-feedback",
                                          "int2+error-feedback",
                                          "eden-2+error-feedback",
                                          "rate-distortion:1+error-feedback",
                                          "int8+zstd",
                                          "int2+zstd",
                                          "rate-distortion+zstd"};
  std::uint64_t seed = 1;
  double seconds = 0.2;  ///< for each direction of each compressor
  bool json = false;
};

/// Of one kind of values.
struct Quality {
  double bits = 0;   ///< a value
  double error = 0;  ///< |Q(x) - x|^2 / |x|^2
};

struct Row {
  std::string name;
  Quality normal;
  Quality heavy;
  double encode_s = 0;
  double decode_s = 0;
};

/// Seconds of one call: the least of several, which is what the machine can do.
template <typename Work>
double time_of(double seconds, const Work& work) {
  double least = 1e9;
  const auto start = Clock::now();
  const auto since = [](Clock::time_point t) {
    return std::chrono::duration<double>(Clock::now() - t).count();
  };
  for (int call = 0; call < 3 || since(start) < seconds; ++call) {
    const auto begin = Clock::now();
    work();
    least = std::min(least, since(begin));
  }
  return least;
}

/// Updates are neither normal nor quite as heavy-tailed as this (a normal value times a log-normal
/// one of sigma 1.5, where one value in a hundred holds four fifths of the squares), but in
/// between.
std::vector<float> make_values(std::size_t size, std::uint64_t seed, bool heavy) {
  RandomStream random(seed, RandomPurpose::kDataGeneration);
  std::vector<float> values(size);
  for (float& x : values) {
    const double normal = random.normal(0, 0.01);
    x = static_cast<float>(heavy ? normal * random.log_normal(0, 1.5) : normal);
  }
  return values;
}

Result<Quality> measure_quality(compression::Compressor& compressor,
                                const std::vector<float>& values,
                                const compression::UpdateName& name, std::vector<float>& out) {
  const SharedBytes bytes = compressor.encode(values, name);
  COVEY_TRY(compressor.decode(bytes.span(), name, out));
  double lost = 0, squares = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double x = values[i];
    lost += (x - out[i]) * (x - out[i]);
    squares += x * x;
  }
  return Quality{8.0 * static_cast<double>(bytes.size()) / static_cast<double>(values.size()),
                 lost / squares};
}

class Bench {
 public:
  explicit Bench(const CompressionOptions& options)
      : options_(options),
        normal_(make_values(options.dimension, options.seed, false)),
        heavy_(make_values(options.dimension, options.seed, true)),
        out_(options.dimension) {
    // a matrix with outputs of 64 channels, which int8 scales one by one
    const std::uint32_t rows = options.dimension / 64;
    if (rows > 0) layout_.append("weight", {rows, 64});
    if (options.dimension % 64 != 0) layout_.append("bias", {options.dimension % 64});
  }

  Result<Row> measure(const std::string& text) {
    COVEY_ASSIGN(const CompressorSpec spec, parse_compressor(text));
    COVEY_ASSIGN(const auto compressor, compression::make_compressor(spec, layout_));
    const compression::UpdateName name{options_.seed, RoundNumber{1}, ClientId{1}};
    Row row{.name = to_string(spec), .normal = {}, .heavy = {}};
    COVEY_ASSIGN(row.heavy, measure_quality(*compressor, heavy_, name, out_));
    COVEY_ASSIGN(row.normal, measure_quality(*compressor, normal_, name, out_));
    SharedBytes bytes;
    row.encode_s = time_of(options_.seconds, [&] { bytes = compressor->encode(normal_, name); });
    Result<void> decoded;
    row.decode_s = time_of(options_.seconds, [&] {
      if (decoded.ok()) decoded = compressor->decode(bytes.span(), name, out_);
    });
    if (!decoded.ok()) return decoded.error();
    return row;
  }

  double memcpy_s() {
    return time_of(options_.seconds,
                   [&] { std::memcpy(out_.data(), normal_.data(), out_.size() * sizeof(float)); });
  }
  /// Of the values before they are encoded.
  double mb_per_s(double seconds) const { return 4e-6 * options_.dimension / seconds; }

 private:
  const CompressionOptions& options_;
  ModelLayout layout_;
  std::vector<float> normal_;
  std::vector<float> heavy_;
  std::vector<float> out_;
};

nlohmann::json json_of(const Row& row, const Bench& bench) {
  return {{"compressor", row.name},
          {"encode_mb_per_s", bench.mb_per_s(row.encode_s)},
          {"decode_mb_per_s", bench.mb_per_s(row.decode_s)},
          {"bits_per_value", row.normal.bits},
          {"normalised_error", row.normal.error},
          {"heavy_bits_per_value", row.heavy.bits},
          {"heavy_normalised_error", row.heavy.error}};
}

Result<int> bench_compression(const CompressionOptions& options) {
  Bench bench(options);
  const double copied = bench.memcpy_s();
  fmt::print("{} values, normal and heavy-tailed; memcpy {:.0f} MB/s; one core\n",
             options.dimension, bench.mb_per_s(copied));
  fmt::print("  {:<34}{:>20}{:>20}{:>19}{:>19}\n", "", "encode", "decode", "normal values",
             "heavy-tailed");
  fmt::print("  {:<34}{:>10}{:>10}{:>10}{:>10}{:>9}{:>10}{:>9}{:>10}\n", "", "MB/s", "memcpys",
             "MB/s", "memcpys", "bits", "error", "bits", "error");
  nlohmann::json rows = nlohmann::json::array();
  for (const std::string& text : options.compressors) {
    COVEY_ASSIGN(const Row row, bench.measure(text));
    fmt::print("  {:<34}{:>10.0f}{:>10.0f}{:>10.0f}{:>10.0f}{:>9.3f}{:>10.5f}{:>9.3f}{:>10.5f}\n",
               row.name, bench.mb_per_s(row.encode_s), row.encode_s / copied,
               bench.mb_per_s(row.decode_s), row.decode_s / copied, row.normal.bits,
               row.normal.error, row.heavy.bits, row.heavy.error);
    rows.push_back(json_of(row, bench));
  }
  if (options.json) {
    print_json({{"dimension", options.dimension},
                {"seed", options.seed},
                {"memcpy_mb_per_s", bench.mb_per_s(copied)},
                {"compressors", rows}});
  }
  return kExitDone;
}

}  // namespace

void add_compression_bench(CLI::App& bench, std::function<int()>& run) {
  auto options = std::make_shared<CompressionOptions>();
  CLI::App* command = bench.add_subcommand(
      "compression", "Encoding and decoding of updates: speed, bits a value and error");
  command->add_option("--dimension", options->dimension, "Values of the update")
      ->check(CLI::Range(1u, 1u << 30))
      ->capture_default_str();
  command->add_option("--compressor", options->compressors,
                      "Which, as in run files; all by default");
  command->add_option("--seed", options->seed, "Of the values")->capture_default_str();
  command
      ->add_option("--seconds", options->seconds,
                   "How long to measure each direction of each compressor")
      ->check(CLI::Range(0.001, 3600.0))
      ->capture_default_str();
  command->add_flag("--json", options->json, "Ends standard output with one JSON object");
  command->footer("Example: covey bench compression --compressor drive top-k:0.01");
  command->callback([options, &run] {
    run = [options] {
      const auto code = bench_compression(*options);
      return code.ok() ? *code : report_error(code.error(), options->json);
    };
  });
}

}  // namespace covey
