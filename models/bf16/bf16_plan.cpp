#include "bf16/bf16_plan.hpp"

#include <algorithm>
#include <cstring>
#include <new>

namespace covey::models {

namespace {

/// 256 KiB of fp32 for the piece of a batch that is in a stage: enough examples to make what a
/// stage does once per piece (a convolution transposes its weights) small, and it stays in a
/// second-level cache.
constexpr std::size_t kPieceFloats = std::size_t{64} << 10;
/// 16 KiB of a dense stage's widened inputs.
constexpr std::size_t kGatherFloats = std::size_t{4} << 10;
/// A recurrent layer's products need rows: pieces of 4 take a tenth longer than of 10, of 2 a half.
constexpr std::size_t kRecurrentPiece = 8;
/// 32 MiB, as Workspace.
constexpr std::size_t kMaxFloats = std::size_t{8} << 20;

constexpr std::size_t halves(std::size_t n) { return (n + 1) / 2; }

/// Collects requests and remembers where each result belongs.
class Requests {
 public:
  void add(std::size_t& home, std::size_t floats, std::size_t first, std::size_t last) {
    if (floats == 0) return;
    requests_.push_back({floats, first, last, 0});
    homes_.push_back(&home);
  }
  std::size_t finish() {
    const std::size_t total = place(requests_);
    for (std::size_t i = 0; i < homes_.size(); ++i) *homes_[i] = requests_[i].offset;
    return total;
  }

 private:
  std::vector<BufferRequest> requests_;
  std::vector<std::size_t*> homes_;
};

std::size_t piece_of(const PlannedStage& stage, std::size_t chunk) {
  if (std::holds_alternative<BatchNormStage>(stage.kind)) return chunk;  // statistics of all
  const std::size_t floats = stage.inputs + stage.outputs + memory_of(stage.kind, 1).saved;
  const bool recurrent =
      std::holds_alternative<LstmStage>(stage.kind) || std::holds_alternative<GruStage>(stage.kind);
  const std::size_t fewest = std::min(recurrent ? kRecurrentPiece : 1, chunk);
  const std::size_t most = std::clamp(kPieceFloats / floats, fewest, chunk);
  const std::size_t pieces = (chunk + most - 1) / most;
  return (chunk + pieces - 1) / pieces;  // of nearly equal size
}

/// Requests the buffers of stage s.
class StagePlanner {
 public:
  StagePlanner(const NetworkPlan& plan, Bf16Plan& result, Requests& requests, std::size_t s)
      : plan_(plan),
        stage_(plan.stages[s]),
        result_(result),
        out_(result.stages[s]),
        requests_(requests),
        s_(s),
        backward_(2 * plan.stages.size() - s) {}

  void run() {
    out_.piece = piece_of(stage_, result_.chunk);
    out_.dense.gather_piece =
        std::clamp<std::size_t>(kGatherFloats / stage_.inputs, 1, result_.chunk);
    // Norms keep means and deviations, which few bits would spoil.
    out_.exact_saved = std::holds_alternative<BatchNormStage>(stage_.kind) ||
                       std::holds_alternative<GroupNormStage>(stage_.kind);
    const auto* dense = std::get_if<DenseStage>(&stage_.kind);
    add_kept();
    add_working(out_.forward, s_, false, dense);
    if (s_ < plan_.first_trained) return;
    add_gradients();
    add_working(out_.backward, backward_, true, dense);
    if (dense != nullptr) add_dense(*dense);
  }

 private:
  std::size_t moment_back(std::size_t s) const { return 2 * plan_.stages.size() - s; }

  void add_kept() {
    const bool trained = s_ >= plan_.first_trained;
    std::size_t last = std::max(s_ + 1, plan_.last_residual(s_));
    if (s_ + 1 >= plan_.first_trained) last = std::max(last, moment_back(s_ + 1));
    if (trained) last = backward_;
    requests_.add(out_.outputs, halves(stage_.outputs * result_.chunk), s_, last);
    const std::size_t pieces = (result_.chunk + out_.piece - 1) / out_.piece;
    const std::size_t saved = pieces * memory_of(stage_.kind, out_.piece).saved;
    requests_.add(out_.saved, out_.exact_saved ? saved : halves(saved), s_,
                  trained ? backward_ : s_);
  }

  void add_gradients() {
    const std::size_t floats = stage_.outputs * result_.chunk;
    requests_.add(out_.gradient, floats, backward_ - 1, backward_);
    if (const std::size_t residual = plan_.last_residual(s_); residual > s_) {
      requests_.add(out_.skip_gradient, floats, moment_back(residual), backward_ - 1);
    }
  }

  void add_working(Bf16Working& work, std::size_t moment, bool backward, const DenseStage* dense) {
    const auto add = [&](std::size_t& home, std::size_t floats) {
      requests_.add(home, floats, moment, moment);
    };
    const StageMemory memory = memory_of(stage_.kind, out_.piece);
    // A dense stage reads bf16 inputs and weights; its bias is widened.
    const std::size_t weights = dense != nullptr ? dense->outputs : stage_.parameters;
    const std::size_t inputs = dense == nullptr ? out_.piece
                               : backward       ? out_.dense.gather_piece
                                                : 0;
    add(work.inputs, inputs * stage_.inputs);
    add(work.skip, stage_.skip && !backward ? stage_.outputs * out_.piece : 0);
    add(work.outputs, stage_.outputs * out_.piece);
    add(work.saved, out_.exact_saved ? 0 : memory.saved);
    if (dense == nullptr)
      add(work.scratch, backward ? memory.backward_scratch : memory.forward_scratch);
    add(work.weights, weights);
    if (backward) add(work.gradient, weights);
  }

  void add_dense(const DenseStage& dense) {
    const std::size_t rows = result_.chunk * dense.rows;
    const auto add = [&](std::size_t& home, std::size_t floats) {
      requests_.add(home, floats, backward_, backward_);
    };
    add(out_.dense.gradient, halves(rows * dense.outputs));
    add(out_.dense.pairs, (rows + 1) / 2 * dense.inputs);
    if (s_ == plan_.first_trained) return;  // nothing below needs a gradient
    add(out_.dense.transposed, halves(dense.outputs * bf16_pitch(rows)));
    add(out_.dense.rows, kBf16TurnRows * bf16_pitch(rows));
  }

  const NetworkPlan& plan_;
  const PlannedStage& stage_;
  Bf16Plan& result_;
  Bf16Stage& out_;
  Requests& requests_;
  std::size_t s_;
  std::size_t backward_;
};

Bf16Plan plan_for(const NetworkPlan& plan, std::size_t chunk) {
  Bf16Plan result;
  result.chunk = chunk;
  const std::size_t count = plan.stages.size();
  result.stages.resize(count);
  Requests requests;
  std::size_t parameter = 0;
  for (std::size_t s = 0; s < count; ++s) {
    result.stages[s].parameter = parameter;
    parameter += plan.stages[s].parameters;
    StagePlanner(plan, result, requests, s).run();
  }
  if (std::holds_alternative<DenseStage>(plan.stages[0].kind)) {
    requests.add(result.inputs, halves(plan.inputs * chunk), 0, 2 * count);
  }
  requests.add(result.scores, plan.outputs * chunk, count - 1, count);
  result.floats = requests.finish();
  return result;
}

}  // namespace

Bf16Plan Bf16Plan::make(const NetworkPlan& plan, std::size_t max_batch) {
  const bool stays_whole = plan.needs_whole_batch();
  std::size_t per_example = plan_for(plan, 1).floats;
  // One example's memory times the batch is at least the batch's: sizes beyond 4 GiB are not even
  // formed where addresses have 32 bits.
  if (stays_whole || sizeof(std::size_t) == 8 ||
      std::uint64_t{per_example} * max_batch < std::uint64_t{1} << 30) {
    Bf16Plan whole = plan_for(plan, max_batch);
    if (whole.floats <= kMaxFloats || stays_whole) return whole;
    per_example = whole.floats / max_batch + 1;
  }
  return plan_for(plan, std::clamp<std::size_t>(kMaxFloats / per_example, 1, max_batch));
}

namespace {
constexpr std::align_val_t kCacheLine{64};
}  // namespace

Bf16Block::Bf16Block(std::size_t bytes) : bytes_(bytes + kKernelSlack * sizeof(float)) {
  data_.reset(static_cast<std::byte*>(::operator new(bytes_, kCacheLine)));
  std::memset(data_.get(), 0, bytes_);
}

void Bf16Block::Free::operator()(std::byte* p) const { ::operator delete(p, kCacheLine); }

}  // namespace covey::models
