#include <array>
#include <bit>
#include <concepts>
#include <covey/messages.hpp>
#include <cstring>
#include <type_traits>

namespace covey {
namespace {

/// The fixed encoding behind digest_of: numbers little-endian at their full width (floats as their
/// IEEE 754 bits), booleans and enumerations as one byte, strings and lists with their length as
/// 64 bits in front. The structures are taken apart by structured bindings, so that one that gains
/// a field does not compile until the field is put in here.
class PlanHash {
 public:
  template <typename Unsigned>
  requires std::unsigned_integral<Unsigned>
  void put(Unsigned value) {
    std::array<std::byte, sizeof value> bytes{};
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
    }
    hash_.update(bytes);
  }
  void put(bool value) { put(static_cast<std::uint8_t>(value)); }
  void put(float value) { put(std::bit_cast<std::uint32_t>(value)); }
  void put(double value) { put(std::bit_cast<std::uint64_t>(value)); }
  template <typename Enum>
  requires std::is_enum_v<Enum>
  void put(Enum value) { put(static_cast<std::underlying_type_t<Enum>>(value)); }
  void put(const std::string& text) {
    put_size(text.size());
    hash_.update(std::as_bytes(std::span(text)));
  }
  template <typename Item>
  void put(const std::vector<Item>& items) {
    put_size(items.size());
    for (const Item& item : items) put(item);
  }
  void put(const std::pair<std::string, double>& parameter) {
    put(parameter.first);
    put(parameter.second);
  }
  void put(const LayerSpec& layer) {
    const auto& [kind, units, kernel, stride, padding, vocabulary, groups, back, rate, peephole,
                 last_only] = layer;
    put_all(kind, units, kernel, stride, padding, vocabulary, groups, back, rate, peephole,
            last_only);
  }
  void put(const ModelSpec& model) {
    const auto& [input_shape, layers, loss, target, initialisation, torchscript] = model;
    put_all(input_shape, layers, loss, target, initialisation, torchscript);
  }
  void put(const OptimizerSpec& optimizer) {
    const auto& [kind, momentum, beta1, beta2, epsilon, weight_decay, clip_norm] = optimizer;
    put_all(kind, momentum, beta1, beta2, epsilon, weight_decay, clip_norm);
  }
  void put(const SecureAggregationPlan& plan) {
    const auto& [threat_model, cipher, complete_graph, bits, clip, max_weight, rotation,
                 max_devices, dropout, corruption, subsample] = plan;
    put_all(threat_model, cipher, complete_graph, bits, clip, max_weight, rotation, max_devices,
            dropout, corruption);
    if (subsample != 1) put(subsample);
  }
  void put(const PrivacyPlan& plan) {
    const auto& [clip, clip_norm, noise, noise_stddev] = plan;
    put_all(clip, clip_norm, noise, noise_stddev);
  }
  void put(const TrainingPlan& plan) {
    const auto& [strategy, strategy_parameters, model, local_epochs, batch_size, learning_rate,
                 optimizer, seed, accept_partial_work, precision, compressor, max_update_norm,
                 secure_aggregation, privacy] = plan;
    put_all(strategy, strategy_parameters, model, local_epochs, batch_size, learning_rate,
            optimizer, seed, accept_partial_work, precision, compressor, max_update_norm,
            secure_aggregation, privacy);
  }

  Digest finish() { return hash_.finish(); }

 private:
  void put_size(std::size_t size) { put(static_cast<std::uint64_t>(size)); }
  template <typename... Fields>
  void put_all(const Fields&... fields) {
    (put(fields), ...);
  }

  Sha256 hash_;
};

}  // namespace

Digest digest_of(const TrainingPlan& plan) {
  PlanHash hash;
  // Names what is hashed, and is to change with the encoding.
  hash.put(std::string("covey training plan 1"));
  hash.put(plan);
  return hash.finish();
}

}  // namespace covey
