// Input: one byte that says what the rest is: 0 an exported integer model (its SHA-256 is appended,
// so that the reader behind the checksum is reached), 1 an int8 blob for a small layout, else a
// description of a network. A network that is accepted and small is trained for a step in every
// precision that takes it.
#include <algorithm>
#include <array>
#include <cmath>
#include <covey/digest.hpp>
#include <covey/encoding.hpp>
#include <covey/models/engine.hpp>
#include <covey/models/quantised_model.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

using namespace covey;

void check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

/// The input's bytes, one after the other; zeros behind the end.
class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  bool empty() const { return at_ >= bytes_.size(); }
  std::uint8_t byte() { return empty() ? std::uint8_t{0} : bytes_[at_++]; }
  /// Mostly small; sometimes anything.
  std::uint32_t count() {
    const std::uint8_t first = byte();
    if (first < 240) return first % 24;
    std::uint32_t value = 0;
    for (int i = 0; i < 4; ++i) value = value << 8 | byte();
    return value;
  }

 private:
  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = 0;
};

ModelSpec read_spec(Reader& in) {
  ModelSpec spec;
  for (std::uint32_t i = in.byte() % 5u; i > 0; --i) spec.input_shape.push_back(in.count());
  spec.loss = static_cast<Loss>(1 + in.byte() % 3);
  spec.target = static_cast<Target>(1 + in.byte() % 2);
  spec.initialisation = static_cast<Initialisation>(1 + in.byte() % 5);
  while (!in.empty() && spec.layers.size() < 12) {
    LayerSpec layer;
    layer.kind = static_cast<LayerKind>(in.byte() % 21);
    const std::uint8_t given = in.byte();
    if ((given & 1) != 0) layer.units = in.count();
    if ((given & 2) != 0) layer.kernel = in.count();
    if ((given & 4) != 0) layer.stride = in.count();
    if ((given & 8) != 0) layer.padding = Padding::kValid;
    if ((given & 16) != 0) layer.vocabulary = in.count();
    if ((given & 32) != 0) layer.groups = in.count();
    if ((given & 64) != 0) layer.back = in.count();
    if ((given & 128) != 0) {
      layer.rate = static_cast<float>(in.byte()) / 128;
      layer.peephole = layer.rate > 1;
      layer.last_only = in.byte() % 2 == 1;
    }
    spec.layers.push_back(layer);
  }
  return spec;
}

/// A step on two examples: nothing may read or write beside its buffers.
void train(const ModelSpec& spec, const char* precision) {
  auto made = models::make_engine(spec, precision);
  if (!made.ok()) return;
  models::Engine& engine = **made;
  const models::DataShape shape = engine.data_shape();
  const ModelLayout& layout = engine.layout();
  constexpr std::size_t kBatch = 2;
  std::vector<float> inputs(kBatch * shape.example_size);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    inputs[i] = shape.vocabulary > 0 ? static_cast<float>(i % shape.vocabulary)
                                     : std::sin(static_cast<float>(i));
  }
  std::vector<std::int32_t> labels(kBatch * shape.labels_per_example);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    labels[i] = static_cast<std::int32_t>(i % std::min<std::size_t>(shape.classes, 2));
  }
  ParameterVector start(layout.size());
  for (std::size_t i = 0; i < start.size(); ++i) start[i] = 0.1f * std::cos(static_cast<float>(i));
  const auto encoding = model_encoding(precision);
  check(encoding.ok(), "an engine's precision has no encoding");
  engine.reserve(kBatch);
  check(engine.load(encode(*encoding, layout, start.span()).span()).ok(), "a model is refused");
  engine.begin_training({}, RandomStream(1, RandomPurpose::kTraining));
  engine.train_step(inputs, labels, 0.01f, 0.1f);
  engine.evaluate(inputs, labels);
}

void fuzz_network(Reader& in) {
  const ModelSpec spec = read_spec(in);
  const auto network = models::Network::make(spec);
  constexpr std::size_t kSmall = 1 << 16;  // floats; a larger one only slows the search
  if (!network.ok() || network->num_parameters() > kSmall) return;
  if (network->training_flops_per_example() > 1e7 || network->inputs() > kSmall) return;
  models::Workspace probe(*network, 1);
  if (probe.bytes() > 64 * kSmall) return;
  for (const char* precision : {"fp32", "bf16", "qat-int8", "int8"}) train(spec, precision);
}

void fuzz_exported(std::span<const std::byte> body) {
  std::vector<std::byte> file(body.begin(), body.end());
  const Digest digest = sha256(body);
  const auto tail = std::as_bytes(std::span(digest.bytes));
  file.insert(file.end(), tail.begin(), tail.end());
  auto model = models::QuantisedModel::parse(file);
  if (!model.ok()) return;
  const std::vector<float> inputs(model->inputs(), 0.5f);
  const std::vector<std::int32_t> labels(1, 0);
  static_cast<void>(model->evaluate(inputs, labels));
}

void fuzz_blob(std::span<const std::byte> bytes) {
  ModelLayout layout;
  layout.append("dense1.weight", {3, 2});
  layout.append("dense1.bias", {2});
  std::vector<float> values(layout.size());
  if (!decode(Encoding::kInt8, layout, bytes, values).ok()) return;
  for (std::size_t i = 0; i < 6; ++i)
    check(std::isfinite(values[i]), "an accepted weight is not finite");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span rest(data + 1, size - 1);
  if (data[0] == 0) {
    fuzz_exported(std::as_bytes(rest));
  } else if (data[0] == 1) {
    fuzz_blob(std::as_bytes(rest));
  } else {
    Reader in(rest);
    fuzz_network(in);
  }
  return 0;
}
