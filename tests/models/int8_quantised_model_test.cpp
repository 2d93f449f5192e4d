#include <unistd.h>

#include <catch2/catch.hpp>
#include <covey/digest.hpp>
#include <covey/models/quantised_model.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "../../models/quantised/quantised_state.hpp"
#include "int8_support.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using namespace covey::models::int8_test;

std::size_t weighted_layers(const ModelSpec& spec) {
  return static_cast<std::size_t>(std::count_if(
      spec.layers.begin(), spec.layers.end(),
      [](const LayerSpec& layer) { return layer.kind == kDense || layer.kind == kConv2d; }));
}

/// The largest magnitudes of what each prefix of the network gives for `inputs`: the layers up to
/// and including one with weights and its relu, made into a network of its own by a last dense
/// layer would need other parameters, so activations are computed here, plainly.
class PlainNetwork {
 public:
  PlainNetwork(const ModelSpec& spec, std::span<const float> parameters)
      : spec_(spec), parameters_(parameters) {}

  /// Scores of one example; widens ranges.
  std::vector<double> run(std::span<const float> input, std::vector<float>& ranges) {
    shape_ = spec_.input_shape;
    x_.assign(input.begin(), input.end());
    offset_ = 0;
    range_ = 0;
    widen(ranges);
    for (std::size_t l = 0; l < spec_.layers.size(); ++l) {
      apply(spec_.layers[l]);
      const bool weighted = spec_.layers[l].kind == kDense || spec_.layers[l].kind == kConv2d;
      if (!weighted) continue;
      ++range_;
      // relu may follow directly or behind a pool, where it changes the range just as well
      bool relu_follows = false;
      for (std::size_t next = l + 1; next < spec_.layers.size(); ++next) {
        const LayerKind kind = spec_.layers[next].kind;
        if (kind == kRelu) relu_follows = true;
        if (kind != kMaxPool2d) break;
      }
      const auto kept = x_;
      if (relu_follows) apply({.kind = kRelu});
      widen(ranges);
      x_ = kept;
    }
    return x_;
  }

 private:
  void widen(std::vector<float>& ranges) {
    for (const double value : x_) {
      ranges[range_] = std::max(ranges[range_], static_cast<float>(std::abs(value)));
    }
  }
  double parameter(std::size_t i) const { return static_cast<double>(parameters_[offset_ + i]); }

  void apply(const LayerSpec& layer) {
    if (layer.kind == kRelu) {
      for (double& value : x_) value = std::max(value, 0.0);
    } else if (layer.kind == kFlatten) {
      shape_ = {static_cast<std::uint32_t>(x_.size())};
    } else if (layer.kind == kDense) {
      apply_dense(layer.units);
    } else if (layer.kind == kConv2d) {
      apply_convolution(layer.units, static_cast<int>(layer.kernel));
    } else {
      apply_pool(layer.kernel);
    }
  }

  void apply_dense(std::size_t units) {
    std::vector<double> y(units);
    for (std::size_t o = 0; o < units; ++o) {
      y[o] = parameter(x_.size() * units + o);
      for (std::size_t i = 0; i < x_.size(); ++i) y[o] += x_[i] * parameter(i * units + o);
    }
    offset_ += (x_.size() + 1) * units;
    x_ = y;
    shape_ = {static_cast<std::uint32_t>(units)};
  }

  void apply_convolution(std::size_t filters, int kernel) {
    const int height = static_cast<int>(shape_[0]);
    const int width = static_cast<int>(shape_[1]);
    const std::size_t channels = shape_[2];
    const auto taps = static_cast<std::size_t>(kernel * kernel);
    std::vector<double> y(static_cast<std::size_t>(height * width) * filters);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const std::size_t o = i % filters;
      const int row = static_cast<int>(i / filters) / width;
      const int column = static_cast<int>(i / filters) % width;
      y[i] = parameter(taps * channels * filters + o);
      for (int tap = 0; tap < kernel * kernel; ++tap) {
        const int from_row = row + tap / kernel - (kernel - 1) / 2;
        const int from_column = column + tap % kernel - (kernel - 1) / 2;
        if (from_row < 0 || from_row >= height || from_column < 0 || from_column >= width) continue;
        for (std::size_t c = 0; c < channels; ++c) {
          y[i] += x_[static_cast<std::size_t>(from_row * width + from_column) * channels + c] *
                  parameter((static_cast<std::size_t>(tap) * channels + c) * filters + o);
        }
      }
    }
    offset_ += (taps * channels + 1) * filters;
    x_ = y;
    shape_[2] = static_cast<std::uint32_t>(filters);
  }

  void apply_pool(std::uint32_t window) {
    const std::size_t height = shape_[0] / window;
    const std::size_t width = shape_[1] / window;
    const std::size_t channels = shape_[2];
    std::vector<double> y(height * width * channels, -1e300);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const std::size_t row = i / channels / width * window;
      const std::size_t column = i / channels % width * window;
      for (std::size_t k = 0; k < std::size_t{window} * window; ++k) {
        const std::size_t at = (row + k / window) * shape_[1] + column + k % window;
        y[i] = std::max(y[i], x_[at * channels + i % channels]);
      }
    }
    x_ = y;
    shape_[0] /= window;
    shape_[1] /= window;
  }

  const ModelSpec& spec_;
  std::span<const float> parameters_;
  std::vector<std::uint32_t> shape_;
  std::vector<double> x_;
  std::size_t offset_ = 0;
  std::size_t range_ = 0;
};

struct Exported {
  std::vector<float> parameters;
  Batch batch;
  std::vector<float> ranges;
  std::vector<double> scores;  ///< in floats
  QuantisedModel model;
};

Exported exported(const ModelSpec& spec, std::uint64_t seed, std::size_t examples) {
  const auto network = Network::make(spec);
  std::vector<float> parameters = initial_parameters(spec, seed);
  Batch batch = random_batch(examples, network->inputs(), network->classes(), seed);
  std::vector<float> ranges(weighted_layers(spec) + 1);
  std::vector<double> scores;
  PlainNetwork plain(spec, parameters);
  for (std::size_t i = 0; i < examples; ++i) {
    const auto one = plain.run(
        std::span<const float>(batch.inputs).subspan(i * network->inputs(), network->inputs()),
        ranges);
    scores.insert(scores.end(), one.begin(), one.end());
  }
  auto model = QuantisedModel::make(spec, parameters, ranges);
  REQUIRE(model.ok());
  return {std::move(parameters), std::move(batch), std::move(ranges), std::move(scores),
          std::move(*model)};
}

std::vector<float> predict(QuantisedModel& model, std::span<const float> inputs) {
  std::vector<float> scores(inputs.size() / model.inputs() * model.classes());
  model.predict(inputs, scores);
  return scores;
}

std::string refusal(std::span<const std::byte> bytes) {
  const auto model = QuantisedModel::parse(bytes);
  REQUIRE_FALSE(model.ok());
  return model.error().message;
}

/// Bytes that were changed, with the checksum they would have.
std::vector<std::byte> sealed(std::vector<std::byte> bytes) {
  const std::size_t content = bytes.size() - 32;
  const Digest digest = sha256(std::span(bytes).first(content));
  std::memcpy(bytes.data() + content, digest.bytes.data(), 32);
  return bytes;
}

}  // namespace

TEST_CASE("int8: an exported model's scores are those of the network in floats", "[int8]") {
  constexpr std::uint64_t kSeed = 43;
  for (const auto& [name, spec] : int8_specs()) {
    CAPTURE(name, kSeed);
    Exported e = exported(spec, kSeed, 37);
    const auto scores = predict(e.model, e.batch.inputs);
    double error = 0;
    double squares = 0;
    for (std::size_t i = 0; i < scores.size(); ++i) {
      const double difference = static_cast<double>(scores[i]) - e.scores[i];
      error += difference * difference;
      squares += e.scores[i] * e.scores[i];
    }
    // weights and activations in 8 bits: about a hundredth of the scores
    CHECK(std::sqrt(error / squares) < 0.03);
    CHECK(std::sqrt(error / squares) > 0);
  }
}

TEST_CASE("int8: an exported model does what the integer arithmetic says", "[int8]") {
  // One input of range 1.27 (scale .01), one hidden unit with weight .5 (scale .5 / 127) and bias
  // .25, range 1.27, two classes with weights 1 and -1 (scale 1 / 127) and biases 0 and .5.
  const ModelSpec spec{{1}, {dense(1), relu(), dense(2)}};
  const std::vector<float> parameters{0.5f, 0.25f, 1.0f, -1.0f, 0.0f, 0.5f};
  auto model = QuantisedModel::make(spec, parameters, std::vector<float>{1.27f, 1.27f, 5.0f});
  REQUIRE(model.ok());
  const float hidden_scale = round_up_to_int8_scale(0.5f / 127);
  const float class_scale = round_up_to_int8_scale(1.0f / 127);
  const float x_scale = 1.27f / 127;
  for (const float input : {-1.27f, -0.6f, 0.0f, 0.3f, 1.0f, 2.0f}) {
    CAPTURE(input);
    const int x =
        static_cast<int>(std::clamp(std::nearbyint(input * (1 / x_scale)), -127.0f, 127.0f));
    const double unit = static_cast<double>(x_scale) * static_cast<double>(hidden_scale);
    const int w = static_cast<int>(std::nearbyint(0.5 / static_cast<double>(hidden_scale)));
    const int bias = static_cast<int>(std::nearbyint(0.25 / unit));
    const FixedPoint factor = fixed_point(unit / static_cast<double>(x_scale));
    const std::int64_t product = std::int64_t{x * w + bias} * factor.multiplier;
    const auto rounded = (product + (std::int64_t{1} << (factor.shift - 1))) >> factor.shift;
    const int hidden = static_cast<int>(std::clamp<std::int64_t>(rounded, 0, 127));
    const double class_unit = static_cast<double>(x_scale) * static_cast<double>(class_scale);
    const int one = static_cast<int>(std::nearbyint(1.0 / static_cast<double>(class_scale)));
    const int half = static_cast<int>(std::nearbyint(0.5 / class_unit));
    const auto scores = predict(*model, std::vector<float>{input});
    CHECK(scores[0] == static_cast<float>(hidden * one) * (x_scale * class_scale));
    CHECK(scores[1] == static_cast<float>(-hidden * one + half) * (x_scale * class_scale));
  }
}

TEST_CASE("int8: fixed-point factors are within 2^-31 of what they stand for", "[int8]") {
  for (const double real : {1.0, 0.5, 0.75, 1e-3, 3.14159, 1e-9, 1000.0, 0x1p-32}) {
    const FixedPoint fixed = fixed_point(real);
    CAPTURE(real, fixed.multiplier, fixed.shift);
    CHECK(std::ldexp(fixed.multiplier, -fixed.shift) == Approx(real).epsilon(0x1p-31));
    CHECK(fixed.shift >= 1);
    CHECK(fixed.shift <= 62);
  }
  CHECK(fixed_point(0x1p-40).multiplier == 0);
  CHECK(fixed_point(0).multiplier == 0);
  CHECK(fixed_point(1e20).shift == 1);
  CHECK(fixed_point(0x1.ffffffffp-1).multiplier == 1 << 30);  // rounds up into the next power
}

TEST_CASE("int8: an exported model gives the same bits on every instruction set and in any batch",
          "[int8]") {
  constexpr std::uint64_t kSeed = 47;
  for (const auto& [name, spec] : int8_specs()) {
    CAPTURE(name, kSeed);
    std::vector<std::vector<float>> results;
    for (const char* isa : {"sse2", "avx2", "avx512"}) {
      const IsaScope scope(isa);
      Exported e = exported(spec, kSeed, 21);
      results.push_back(predict(e.model, e.batch.inputs));
      std::vector<float>& single = results.emplace_back();
      for (std::size_t i = 0; i < 21; ++i) {
        const auto one = predict(
            e.model,
            std::span<const float>(e.batch.inputs).subspan(i * e.model.inputs(), e.model.inputs()));
        single.insert(single.end(), one.begin(), one.end());
      }
    }
    for (const auto& result : results) CHECK(result == results[0]);
  }
}

TEST_CASE("int8: evaluation counts what the scores say", "[int8]") {
  constexpr std::uint64_t kSeed = 53;
  Exported e = exported(int8_specs()[4].spec, kSeed, 40);
  const auto scores = predict(e.model, e.batch.inputs);
  std::uint64_t correct = 0;
  double loss = 0;
  for (std::size_t i = 0; i < 40; ++i) {
    const auto* row = scores.data() + i * 10;
    const auto label = static_cast<std::size_t>(e.batch.labels[i]);
    if (static_cast<std::size_t>(std::max_element(row, row + 10) - row) == label) ++correct;
    double sum = 0;
    for (std::size_t c = 0; c < 10; ++c) sum += std::exp(static_cast<double>(row[c]));
    loss += std::log(sum) - static_cast<double>(row[label]);
  }
  const Evaluation evaluation = e.model.evaluate(e.batch.inputs, e.batch.labels);
  CHECK(evaluation.examples == 40);
  CHECK(evaluation.correct == correct);
  CHECK(evaluation.loss_sum == Approx(loss));
  e.batch.inputs[5] = NAN;
  CHECK(std::isnan(e.model.evaluate(e.batch.inputs, e.batch.labels).loss()));
  CHECK(std::isnan(predict(e.model, e.batch.inputs)[0]));
}

TEST_CASE("int8: an exported model is the same after saving and loading", "[int8]") {
  constexpr std::uint64_t kSeed = 59;
  const auto folder = std::filesystem::temp_directory_path() /
                      ("covey_int8_" + std::to_string(::getpid()) + "_saved");
  std::filesystem::create_directories(folder);
  const std::string path = (folder / "model.q8").string();
  for (const auto& [name, spec] : int8_specs()) {
    CAPTURE(name, kSeed);
    Exported e = exported(spec, kSeed, 5);
    REQUIRE(e.model.save(path).ok());
    auto loaded = QuantisedModel::load(path);
    REQUIRE(loaded.ok());
    CHECK(loaded->spec() == spec);
    CHECK(loaded->num_parameters() == e.parameters.size());
    CHECK(loaded->serialise() == e.model.serialise());
    CHECK(predict(*loaded, e.batch.inputs) == predict(e.model, e.batch.inputs));
    CHECK_FALSE(std::filesystem::exists(path + ".new"));
  }
  const auto missing = QuantisedModel::load((folder / "absent").string());
  REQUIRE_FALSE(missing.ok());
  CHECK(missing.error().code == ErrorCode::kNotFound);
  CHECK_THAT(missing.error().message, Catch::Contains("absent: opening: No such file"));
  const auto nowhere =
      exported(int8_specs()[0].spec, kSeed, 1).model.save((folder / "no/where").string());
  REQUIRE_FALSE(nowhere.ok());
  CHECK_THAT(nowhere.error().message, Catch::Contains("writing: No such file"));
  std::filesystem::remove_all(folder);
}

TEST_CASE("int8: every damaged byte and every cut of an exported model is refused", "[int8]") {
  constexpr std::uint64_t kSeed = 61;
  const auto bytes = exported({{5}, {dense(3), relu(), dense(2)}}, kSeed, 1).model.serialise();
  REQUIRE(QuantisedModel::parse(bytes).ok());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    auto broken = bytes;
    broken[i] ^= std::byte{1};
    CHECK_THAT(refusal(broken), Catch::StartsWith("quantised model: "));
    CHECK_THAT(refusal(std::span(bytes).first(i)), Catch::StartsWith("quantised model: "));
  }
  // with a checksum that fits, content is checked for itself: no byte may crash the reader
  for (std::size_t i = 12; i + 32 < bytes.size(); ++i) {
    for (const std::byte flip : {std::byte{1}, std::byte{0x80}, std::byte{0xFF}}) {
      auto changed = bytes;
      changed[i] ^= flip;
      const auto model = QuantisedModel::parse(sealed(changed));
      if (model.ok()) CHECK(model->serialise() == sealed(changed));
    }
  }
  auto other = bytes;
  other[8] = std::byte{2};
  CHECK(refusal(sealed(other)) == "quantised model: version 2; this program reads version 1");
  other = bytes;
  other[12 + 4 + 4 + 4] = std::byte{10};  // the first layer's kind
  CHECK_THAT(refusal(sealed(other)), Catch::Contains("layer 1 has kind 10"));
  other = bytes;
  other.insert(other.end() - 32, std::byte{0});
  CHECK_THAT(refusal(sealed(other)), Catch::Contains("int8 blob: "));
}

TEST_CASE("int8: parameters and ranges that do not fit are refused", "[int8]") {
  const ModelSpec spec{{5}, {dense(3), relu(), dense(2)}};
  std::vector<float> parameters(5 * 3 + 3 + 3 * 2 + 2, 0.5f);
  const auto message = [&](const std::vector<float>& ranges) {
    const auto model = QuantisedModel::make(spec, parameters, ranges);
    REQUIRE_FALSE(model.ok());
    return model.error().message;
  };
  CHECK_THAT(message({1, 1}), Catch::StartsWith("2 activation ranges where the network has 3"));
  CHECK_THAT(message({1, -1, 1}), Catch::StartsWith("activation range 2 of 3 is -1"));
  CHECK_THAT(message({1, 1, NAN}), Catch::StartsWith("activation range 3 of 3 is nan"));
  CHECK(QuantisedModel::make(spec, parameters, std::vector<float>{0, 0, 0}).ok());
  parameters[7] = INFINITY;
  CHECK_THAT(message({1, 1, 1}), Catch::Contains("channel 1 of dense1.weight is nan"));
  parameters.pop_back();
  CHECK_THAT(message({1, 1, 1}), Catch::StartsWith("25 parameters where the network has 26"));
  const auto lstm = QuantisedModel::make({{5}, {{.kind = LayerKind::kLstm, .units = 2}, dense(2)}},
                                         parameters, std::vector<float>{1, 1});
  REQUIRE_FALSE(lstm.ok());
  CHECK(lstm.error().message == "layer 1 (lstm) cannot be run in int8; fp32 can");
}
