#include <limits>

#include "codec_common.hpp"

namespace covey::proto {
namespace {

// Larger than any that trains; what is multiplied with it stays finite.
constexpr float kLargestFactor = 1e30f;

void write(const LayerSpec& layer, wire::LayerSpec* out) {
  out->set_kind(static_cast<wire::LayerKind>(layer.kind));
  out->set_units(layer.units);
  out->set_kernel(layer.kernel);
  // Most layers have none of these: left out, they are the defaults.
  const LayerSpec none;
  if (layer.stride != none.stride) out->set_stride(layer.stride);
  if (layer.padding != none.padding) {
    out->set_padding(static_cast<wire::Padding>(layer.padding));
  }
  if (layer.vocabulary != none.vocabulary) out->set_vocabulary(layer.vocabulary);
  if (layer.groups != none.groups) out->set_groups(layer.groups);
  if (layer.back != none.back) out->set_back(layer.back);
  if (layer.rate > none.rate) out->set_rate(layer.rate);
  if (layer.peephole) out->set_peephole(true);
  if (layer.last_only) out->set_last_only(true);
}

LayerSpec read_layer(FieldReader& reader, const wire::LayerSpec& in) {
  LayerSpec layer;
  layer.kind = reader.known(COVEY_FIELD(in, kind), LayerKind::kDense, LayerKind::kAdd);
  layer.units = reader.value(COVEY_FIELD(in, units));
  layer.kernel = reader.value(COVEY_FIELD(in, kernel));
  // A number left out reads as 0 or false, which is its default here.
  layer.stride = in.stride();
  layer.padding =
      reader.known_or(layer.padding, COVEY_FIELD(in, padding), Padding::kSame, Padding::kValid);
  layer.vocabulary = in.vocabulary();
  layer.groups = in.groups();
  layer.back = in.back();
  layer.rate = reader.number_or(layer.rate, COVEY_FIELD(in, rate), 0, 1);
  layer.peephole = in.peephole();
  layer.last_only = in.last_only();
  return layer;
}

void write(const ModelSpec& model, wire::ModelSpec* out) {
  out->mutable_input_shape()->Add(model.input_shape.begin(), model.input_shape.end());
  for (const LayerSpec& layer : model.layers) write(layer, out->add_layers());
  out->set_loss(static_cast<wire::Loss>(model.loss));
  out->set_target(static_cast<wire::Target>(model.target));
  out->set_initialisation(static_cast<wire::Initialisation>(model.initialisation));
  if (!model.torchscript.empty()) out->set_torchscript(wire_text(model.torchscript));
}

ModelSpec read_model(FieldReader& reader, const wire::ModelSpec& in) {
  ModelSpec model;
  if (reader.length(in.input_shape_size(), "input_shape")) {
    model.input_shape.assign(in.input_shape().begin(), in.input_shape().end());
  }
  if (!reader.length(in.layers_size(), "layers", kMaxLayers)) return model;
  model.layers.reserve(static_cast<std::size_t>(in.layers_size()));
  for (const auto& layer : in.layers()) {
    reader.part(true, layer, "layers",
                [&](const auto& part) { model.layers.push_back(read_layer(reader, part)); });
  }
  model.loss = reader.known_or(model.loss, COVEY_FIELD(in, loss), Loss::kCrossEntropy,
                               Loss::kBinaryCrossEntropy);
  model.target =
      reader.known_or(model.target, COVEY_FIELD(in, target), Target::kLabel, Target::kInput);
  model.initialisation = reader.known_or(model.initialisation, COVEY_FIELD(in, initialisation),
                                         Initialisation::kFanIn, Initialisation::kGlorotUniform);
  if (in.torchscript().empty()) return model;
  if (!Digest::from_hex(in.torchscript())) {
    reader.fail("torchscript", "not the 64 lower-case hexadecimal digits of a SHA-256");
    return model;
  }
  model.torchscript = in.torchscript();
  return model;
}

void write(const OptimizerSpec& optimizer, wire::OptimizerSpec* out) {
  out->set_kind(static_cast<wire::OptimizerKind>(optimizer.kind));
  out->set_momentum(optimizer.momentum);
  out->set_beta1(optimizer.beta1);
  out->set_beta2(optimizer.beta2);
  out->set_epsilon(optimizer.epsilon);
  out->set_weight_decay(optimizer.weight_decay);
  out->set_clip_norm(optimizer.clip_norm);
}

OptimizerSpec read_optimizer(FieldReader& reader, const wire::OptimizerSpec& in) {
  constexpr float kSmallest = std::numeric_limits<float>::denorm_min();
  OptimizerSpec read;
  read.kind =
      reader.known_or(read.kind, COVEY_FIELD(in, kind), OptimizerKind::kSgd, OptimizerKind::kAdamW);
  // Averages that forget nothing never move, and an epsilon of 0 divides by zero.
  read.momentum = reader.number_or(read.momentum, COVEY_FIELD(in, momentum), 0, 1);
  read.beta1 = reader.number_or(read.beta1, COVEY_FIELD(in, beta1), 0, 1);
  read.beta2 = reader.number_or(read.beta2, COVEY_FIELD(in, beta2), 0, 1);
  read.epsilon =
      reader.number_or(read.epsilon, COVEY_FIELD(in, epsilon), kSmallest, kLargestFactor);
  read.weight_decay =
      reader.number_or(read.weight_decay, COVEY_FIELD(in, weight_decay), 0, kLargestFactor);
  read.clip_norm = reader.number_or(read.clip_norm, COVEY_FIELD(in, clip_norm), 0,
                                    std::numeric_limits<float>::infinity());
  return read;
}

void write(const SecureAggregationPlan& plan, wire::SecureAggregationPlan* out) {
  out->set_threat_model(static_cast<wire::ThreatModel>(plan.threat_model));
  out->set_cipher(static_cast<wire::MaskCipher>(plan.cipher));
  out->set_complete_graph(plan.complete_graph);
  out->set_bits(plan.bits);
  out->set_clip(plan.clip);
  out->set_max_weight(plan.max_weight);
  out->set_rotation(plan.rotation);
  out->set_max_devices(plan.max_devices);
  out->set_dropout(plan.dropout);
  out->set_corruption(plan.corruption);
  if (plan.subsample != 1) out->set_subsample(plan.subsample);
}

SecureAggregationPlan read_secure_aggregation(FieldReader& reader,
                                              const wire::SecureAggregationPlan& in) {
  SecureAggregationPlan plan;
  plan.threat_model = reader.known(COVEY_FIELD(in, threat_model), ThreatModel::kNone,
                                   ThreatModel::kMaliciousServer);
  plan.cipher =
      reader.known(COVEY_FIELD(in, cipher), MaskCipher::kAes128Ctr, MaskCipher::kChaCha20);
  plan.complete_graph = reader.value(COVEY_FIELD(in, complete_graph));
  plan.bits = reader.value(COVEY_FIELD(in, bits));
  // 2^b - 2 steps between the clips: one bit leaves none; 24 are a float's.
  if (plan.bits < 2 || plan.bits > 24) reader.fail("bits", "must be 2 to 24");
  plan.clip = reader.above_zero(COVEY_FIELD(in, clip));
  plan.max_weight = plan.enabled() ? reader.above_zero(COVEY_FIELD(in, max_weight))
                                   : reader.at_least_zero(COVEY_FIELD(in, max_weight));
  plan.rotation = reader.value(COVEY_FIELD(in, rotation));
  plan.max_devices = reader.value(COVEY_FIELD(in, max_devices));
  if (plan.enabled() && plan.max_devices == 0) reader.fail("max_devices", "must be at least 1");
  plan.dropout = reader.fraction(COVEY_FIELD(in, dropout));
  plan.corruption = reader.fraction(COVEY_FIELD(in, corruption));
  if (in.has_subsample()) {
    plan.subsample = reader.above_zero(COVEY_FIELD(in, subsample));
    if (plan.subsample > 1) reader.fail("subsample", "must be at most 1");
  }
  return plan;
}

void write(const PrivacyPlan& plan, wire::PrivacyPlan* out) {
  out->set_clip(static_cast<wire::ClipKind>(plan.clip));
  out->set_clip_norm(plan.clip_norm);
  out->set_noise(static_cast<wire::DeviceNoise>(plan.noise));
  out->set_noise_stddev(plan.noise_stddev);
}

PrivacyPlan read_privacy(FieldReader& reader, const wire::PrivacyPlan& in) {
  PrivacyPlan plan;
  plan.clip = reader.known(COVEY_FIELD(in, clip), ClipKind::kNone, ClipKind::kAdaptive);
  plan.clip_norm = plan.enabled() ? reader.above_zero(COVEY_FIELD(in, clip_norm))
                                  : reader.at_least_zero(COVEY_FIELD(in, clip_norm));
  plan.noise = reader.known(COVEY_FIELD(in, noise), DeviceNoise::kNone, DeviceNoise::kSkellam);
  plan.noise_stddev = reader.at_least_zero(COVEY_FIELD(in, noise_stddev));
  return plan;
}

}  // namespace

void write(const TrainingPlan& plan, wire::TrainingPlan* out) {
  out->set_strategy(wire_text(plan.strategy));
  for (const auto& [name, value] : plan.strategy_parameters) {
    auto* item = out->add_strategy_parameters();
    item->set_name(wire_text(name));
    item->set_value(value);
  }
  write(plan.model, out->mutable_model());
  out->set_local_epochs(plan.local_epochs);
  out->set_batch_size(plan.batch_size);
  out->set_learning_rate(plan.learning_rate);
  write(plan.optimizer, out->mutable_optimizer());
  out->set_seed(plan.seed);
  out->set_accept_partial_work(plan.accept_partial_work);
  out->set_precision(wire_text(plan.precision));
  out->set_compressor(wire_text(plan.compressor));
  out->set_max_update_norm(plan.max_update_norm);
  // Left out they are the defaults, and a plan without privacy is as small as it was.
  if (plan.secure_aggregation != SecureAggregationPlan{}) {
    write(plan.secure_aggregation, out->mutable_secure_aggregation());
  }
  if (plan.privacy != PrivacyPlan{}) write(plan.privacy, out->mutable_privacy());
}

TrainingPlan read_plan(FieldReader& reader, const wire::TrainingPlan& in) {
  TrainingPlan plan;
  plan.strategy = reader.text(COVEY_FIELD(in, strategy));
  if (reader.length(in.strategy_parameters_size(), "strategy_parameters")) {
    for (const auto& parameter : in.strategy_parameters()) {
      reader.part(true, parameter, "strategy_parameters", [&](const auto& part) {
        plan.strategy_parameters.emplace_back(reader.text(COVEY_FIELD(part, name)),
                                              reader.value(COVEY_FIELD(part, value)));
      });
    }
  }
  reader.part(COVEY_FIELD(in, model),
              [&](const auto& part) { plan.model = read_model(reader, part); });
  plan.local_epochs = reader.value(COVEY_FIELD(in, local_epochs));
  plan.batch_size = reader.value(COVEY_FIELD(in, batch_size));
  plan.learning_rate =
      reader.number_or(plan.learning_rate, COVEY_FIELD(in, learning_rate), 0, kLargestFactor);
  if (in.has_optimizer()) {
    reader.part(COVEY_FIELD(in, optimizer),
                [&](const auto& part) { plan.optimizer = read_optimizer(reader, part); });
  }
  plan.seed = reader.value(COVEY_FIELD(in, seed));
  plan.accept_partial_work = reader.value(COVEY_FIELD(in, accept_partial_work));
  plan.precision = reader.text(COVEY_FIELD(in, precision));
  plan.compressor = reader.text(COVEY_FIELD(in, compressor));
  plan.max_update_norm = reader.value(COVEY_FIELD(in, max_update_norm));
  if (in.has_secure_aggregation()) {
    reader.part(COVEY_FIELD(in, secure_aggregation), [&](const auto& part) {
      plan.secure_aggregation = read_secure_aggregation(reader, part);
    });
  }
  if (in.has_privacy()) {
    reader.part(COVEY_FIELD(in, privacy),
                [&](const auto& part) { plan.privacy = read_privacy(reader, part); });
  }
  return plan;
}

}  // namespace covey::proto
