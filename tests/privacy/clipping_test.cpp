#include <catch2/catch.hpp>
#include <cmath>
#include <covey/privacy/clipping.hpp>
#include <covey/random.hpp>
#include <limits>
#include <vector>

using namespace covey;
using namespace covey::privacy;

namespace {

PrivacyPlan clip_at(ClipKind kind, double norm) {
  PrivacyPlan plan;
  plan.clip = kind;
  plan.clip_norm = norm;
  return plan;
}

// Squares of floats are exact in long double, so this norm is, up to its last bits.
long double norm_of(std::span<const float> values) {
  long double sum = 0;
  for (const float x : values) sum += static_cast<long double>(x) * x;
  return std::sqrt(sum);
}

ModelLayout three_layers() {
  ModelLayout layout;
  layout.append("dense1.weight", {4, 10});
  layout.append("dense1.bias", {4});
  layout.append("dense2.weight", {3, 4});
  return layout;
}

std::vector<float> normal_vector(RandomStream& random, std::size_t size, double stddev) {
  std::vector<float> values(size);
  for (float& x : values) x = static_cast<float>(stddev * random.normal());
  return values;
}

}  // namespace

TEST_CASE("an update within the norm stays as it is") {
  const auto kind = GENERATE(ClipKind::kFlat, ClipKind::kAdaptive);
  std::vector<float> update{3, 0, -4};
  const auto clipped = clip_update(clip_at(kind, 5), {}, update).value();
  CHECK(clipped.norm == 5);
  CHECK_FALSE(clipped.clipped);
  CHECK(update == std::vector<float>{3, 0, -4});
}

TEST_CASE("an update beyond the norm keeps its direction") {
  std::vector<float> update{30, 0, -40};
  const auto clipped = clip_update(clip_at(ClipKind::kFlat, 5), {}, update).value();
  CHECK(clipped.norm == 50);
  CHECK(clipped.clipped);
  CHECK(update[0] == Approx(3).epsilon(1e-6));
  CHECK(update[1] == 0);
  CHECK(update[2] == Approx(-4).epsilon(1e-6));
}

TEST_CASE("no update exceeds the norm behind clipping, whatever its size and shape") {
  const std::uint64_t seed = GENERATE(range(1, 200));
  CAPTURE(seed);
  RandomStream random(seed, RandomPurpose::kTraining);
  const double limit = std::exp(random.uniform(-60, 20));
  const double stddev = std::exp(random.uniform(-40, 60));
  auto update = normal_vector(random, 1 + random.below(3000), stddev);
  if (random.below(2) == 0) update[random.below(update.size())] *= 1e5f;
  CAPTURE(limit, stddev, update.size());
  const long double before = norm_of(update);
  const auto clipped = clip_update(clip_at(ClipKind::kFlat, limit), {}, update).value();
  CHECK(clipped.norm == Approx(static_cast<double>(before)).epsilon(1e-12));
  CHECK(clipped.clipped == (before > limit));
  CHECK(norm_of(update) <= limit * (1 + 1e-15L));
  // And no more is lost than single precision costs, where values are normal numbers.
  if (limit > 1e-20)
    CHECK(norm_of(update) >= std::min(static_cast<double>(before), limit) * (1 - 1e-6));
}

TEST_CASE("a norm below what single precision can show leaves zeros") {
  std::vector<float> update(100, std::numeric_limits<float>::denorm_min());
  CHECK(clip_update(clip_at(ClipKind::kFlat, 1e-45), {}, update).value().clipped);
  CHECK(norm_of(update) <= 1e-45);
}

TEST_CASE("layer by layer every tensor is within its share and the whole within the norm") {
  const std::uint64_t seed = GENERATE(range(1, 100));
  CAPTURE(seed);
  RandomStream random(seed, RandomPurpose::kTraining);
  const ModelLayout layout = three_layers();
  auto update = normal_vector(random, layout.size(), std::exp(random.uniform(-3, 3)));
  const auto before = update;
  const double limit = 1.7;
  const auto clipped = clip_update(clip_at(ClipKind::kPerLayer, limit), layout, update).value();
  CHECK(clipped.norm == Approx(static_cast<double>(norm_of(before))));
  bool any = false;
  for (const auto& tensor : layout.tensors()) {
    const auto was = std::span(before).subspan(tensor.offset, tensor.size());
    const auto is = std::span(update).subspan(tensor.offset, tensor.size());
    const double share = limit / std::sqrt(3.0);
    any = any || norm_of(was) > share;
    CHECK(norm_of(is) <= share * (1 + 1e-15L));
    if (norm_of(was) <= share) CHECK(std::equal(was.begin(), was.end(), is.begin()));
  }
  CHECK(clipped.clipped == any);
  CHECK(norm_of(update) <= static_cast<long double>(limit));
}

TEST_CASE("without clipping the norm is only measured") {
  std::vector<float> update{3, 4};
  const auto clipped = clip_update({}, {}, update).value();
  CHECK(clipped.norm == 5);
  CHECK_FALSE(clipped.clipped);
  CHECK(update == std::vector<float>{3, 4});
}

TEST_CASE("what cannot be clipped is refused") {
  const auto refused = [](const PrivacyPlan& plan, const ModelLayout& layout,
                          std::vector<float> update) {
    const auto clipped = clip_update(plan, layout, update);
    return clipped.ok() ? "accepted" : clipped.error().message;
  };
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK_THAT(refused(clip_at(ClipKind::kFlat, 1), {}, {1, infinity}),
             Catch::Contains("coordinate 1"));
  CHECK_THAT(refused(clip_at(ClipKind::kNone, 1), {}, {std::nanf("")}),
             Catch::Contains("coordinate 0"));
  CHECK_THAT(refused(clip_at(ClipKind::kFlat, 0), {}, {1}), Catch::Contains("norm of 0"));
  CHECK_THAT(refused(clip_at(ClipKind::kAdaptive, std::nan("")), {}, {1}),
             Catch::Contains("norm of nan"));
  CHECK_THAT(refused(clip_at(ClipKind::kPerLayer, 1), three_layers(), {1}),
             Catch::Contains("layer by layer"));
  CHECK_THAT(refused(clip_at(ClipKind::kPerLayer, 1), {}, {}), Catch::Contains("layer by layer"));
}
