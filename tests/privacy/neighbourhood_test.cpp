#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/privacy/neighbourhood.hpp>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "secagg/hypergeometric.hpp"

namespace covey::privacy {
namespace {

SecureAggregationPlan plan_for(ThreatModel threat_model, double corruption, double dropout) {
  SecureAggregationPlan plan;
  plan.threat_model = threat_model;
  plan.corruption = corruption;
  plan.dropout = dropout;
  return plan;
}

constexpr auto kHonest = ThreatModel::kHonestButCurious;
constexpr auto kMalicious = ThreatModel::kMaliciousServer;

/// By Pascal's triangle, in long double: an independent count of draws.
double exact_at_least(const Hypergeometric& of, std::uint32_t count) {
  std::vector<std::vector<long double>> choose(of.population + 1);
  for (std::size_t n = 0; n < choose.size(); ++n) {
    choose[n].assign(n + 1, 1);
    for (std::size_t k = 1; k < n; ++k) choose[n][k] = choose[n - 1][k - 1] + choose[n - 1][k];
  }
  long double sum = 0;
  for (std::uint32_t x = count; x <= std::min(of.marked, of.drawn); ++x) {
    if (of.drawn - x > of.population - of.marked) continue;
    sum += choose[of.marked][x] * choose[of.population - of.marked][of.drawn - x];
  }
  return static_cast<double>(sum / choose[of.population][of.drawn]);
}

TEST_CASE("hypergeometric tails agree with counting all draws") {
  for (const std::uint32_t population : {1u, 2u, 7u, 20u, 60u}) {
    for (std::uint32_t marked = 0; marked <= population; marked += 1 + population / 9) {
      for (std::uint32_t drawn = 0; drawn <= population; drawn += 1 + population / 7) {
        const Hypergeometric draws{population, marked, drawn};
        for (std::uint32_t count = 0; count <= drawn + 1; ++count) {
          const double expected = exact_at_least(draws, count);
          CHECK(draws.at_least(count) == Approx(expected).epsilon(1e-11).margin(1e-300));
          if (expected < 0.5) {
            CHECK(draws.less_than(count) == Approx(1 - expected).epsilon(1e-11));
          }
        }
      }
    }
  }
}

TEST_CASE("hypergeometric tails are right where single terms underflow") {
  // Mean 1000, standard deviation 20: P(X >= 100) is 1, although P(X = 100) = 0 in doubles.
  const Hypergeometric draws{10000, 5000, 2000};
  CHECK(draws.at_least(100) == 1);
  CHECK(draws.less_than(100) == 0);
  CHECK(draws.at_least(1900) == 0);
  CHECK(draws.at_least(1000) == Approx(0.51).margin(0.01));
}

TEST_CASE("degrees and thresholds at 40 bits, honest but curious, are the published ones") {
  struct Row {
    std::uint32_t devices;
    double share;  // corruption and drop-out
    Neighbourhood expected;
  };
  for (const Row& row : {Row{500, 0.05, {500, 30, 16}}, Row{1000, 0.05, {1000, 34, 18}},
                         Row{10000, 0.05, {10000, 38, 21}}, Row{500, 0.1, {500, 46, 25}},
                         Row{1000, 0.1, {1000, 52, 28}}, Row{10000, 0.1, {10000, 60, 32}}}) {
    INFO(row.devices << " devices, " << row.share);
    const auto found = neighbourhood_for(row.devices, plan_for(kHonest, row.share, row.share), 40);
    REQUIRE(found.ok());
    CHECK(found->degree == row.expected.degree);
    CHECK(found->threshold == row.expected.threshold);
  }
}

TEST_CASE("degrees and thresholds at 40 bits against a malicious server") {
  struct Row {
    std::uint32_t devices;
    double share;
    Neighbourhood expected;
  };
  // Where a device's own share is left out of what an equivocating server can ask for, the third
  // but last and the last are 94 / 64 and 144 / 98; with it they are worth 38.5 and 39.9 bits.
  for (const Row& row : {Row{500, 0.05, {500, 52, 36}}, Row{1000, 0.05, {1000, 62, 43}},
                         Row{10000, 0.05, {10000, 74, 51}}, Row{500, 0.1, {500, 96, 66}},
                         Row{1000, 0.1, {1000, 114, 78}}, Row{10000, 0.1, {10000, 148, 101}}}) {
    INFO(row.devices << " devices, " << row.share);
    const auto found =
        neighbourhood_for(row.devices, plan_for(kMalicious, row.share, row.share), 40);
    REQUIRE(found.ok());
    CHECK(found->degree == row.expected.degree);
    CHECK(found->threshold == row.expected.threshold);
  }
}

TEST_CASE("a third of corrupt devices and 30 % of drop-outs leave almost the complete graph") {
  // Of k neighbours 2k / 3 are needed and 0.7 k survive: only a graph that leaves hardly anyone out
  // is sure enough of that.
  for (const std::uint32_t devices : {500u, 10000u}) {
    const auto found = neighbourhood_for(devices, plan_for(kMalicious, 1.0 / 3, 0.3), 40);
    REQUIRE(found.ok());
    CHECK(found->degree > 2 * devices / 3);
  }
  const auto more = neighbourhood_for(500, plan_for(kMalicious, 1.0 / 3, 0.34), 40);
  REQUIRE_FALSE(more.ok());
  CHECK(
      more.error().message ==
      "secure aggregation (malicious-server) cannot be had among 500 devices of which 166 may work "
      "with the server and 170 may drop out: it takes 334 that answer. Plan for less corruption or "
      "fewer drop-outs");
}

TEST_CASE("a found neighbourhood keeps its bounds, and none smaller does") {
  for (const ThreatModel threat_model : {kHonest, kMalicious}) {
    for (const std::uint32_t devices : {64u, 301u, 5000u}) {
      const auto plan = plan_for(threat_model, 0.07, 0.15);
      const double security = security_of(plan);
      const auto found = neighbourhood_for(devices, plan, security);
      REQUIRE(found.ok());
      INFO(devices << ": " << found->degree << " / " << found->threshold);
      if (found->complete()) continue;
      const auto corrupt = static_cast<std::uint32_t>(0.07 * devices);
      const auto survivors = devices - static_cast<std::uint32_t>(0.15 * devices);
      const auto secure = [&](std::uint32_t k, std::uint32_t t) {
        const Hypergeometric among{devices - 1, corrupt, k};
        const double bound = std::exp2(-security) / devices;
        if (threat_model == kHonest) return among.at_least(t) <= bound;
        return 3 * t > 2 * (k + 1) && 2 * t > k && among.at_least(2 * t - k - 1) <= bound;
      };
      const auto correct = [&](std::uint32_t k, std::uint32_t t) {
        return devices * Hypergeometric{devices - 1, survivors - 1, k}.less_than(t) <=
               std::exp2(-30);
      };
      CHECK(found->degree % 2 == 0);
      CHECK((secure(found->degree, found->threshold) && correct(found->degree, found->threshold)));
      CHECK_FALSE(secure(found->degree, found->threshold - 1));
      for (std::uint32_t k = 2; k < found->degree; k += 2) {
        for (std::uint32_t t = 2; t <= k; ++t) CHECK_FALSE((secure(k, t) && correct(k, t)));
      }
    }
  }
}

TEST_CASE("few devices make a complete graph with a majority, or two thirds") {
  const auto threshold = [](ThreatModel threat_model, std::uint32_t devices) {
    const auto found = neighbourhood_for(devices, plan_for(threat_model, 0.05, 0.1), 40);
    REQUIRE(found.ok());
    CHECK(found->degree == devices - 1);
    return found->threshold;
  };
  const std::vector<std::uint32_t> honest{2, 2, 3, 3, 4, 4, 5, 5, 6};
  const std::vector<std::uint32_t> malicious{2, 3, 3, 4, 5, 5, 6, 7, 7};
  for (std::uint32_t devices = 2; devices <= 10; ++devices) {
    CHECK(threshold(kHonest, devices) == honest[devices - 2]);
    CHECK(threshold(kMalicious, devices) == malicious[devices - 2]);
  }
  CHECK(threshold(kHonest, 19) == 10);
}

TEST_CASE("a complete graph is made where the plan asks for it") {
  auto plan = plan_for(kHonest, 0.3, 0.1);
  plan.complete_graph = true;
  const auto found = neighbourhood_for(1000, plan, 40);
  REQUIRE(found.ok());
  CHECK(*found == Neighbourhood{1000, 999, 501});
  plan.corruption = 0.6;
  const auto corrupt = neighbourhood_for(1000, plan, 40);
  REQUIRE(corrupt.ok());
  CHECK(corrupt->threshold == 601);
  plan.threat_model = kMalicious;
  plan.corruption = 0.5;
  const auto malicious = neighbourhood_for(1000, plan, 40);
  REQUIRE(malicious.ok());
  CHECK(malicious->threshold == 751);  // 2 (751 - 500) > 500, but 2 (750 - 500) is not
}

TEST_CASE("what no plan can mean is refused in a sentence") {
  CHECK_FALSE(neighbourhood_for(1, plan_for(kHonest, 0.05, 0.1), 40).ok());
  CHECK_FALSE(neighbourhood_for(0, plan_for(kHonest, 0.05, 0.1), 40).ok());
  CHECK_FALSE(neighbourhood_for(100, plan_for(ThreatModel::kNone, 0.05, 0.1), 40).ok());
  CHECK_FALSE(neighbourhood_for(100, plan_for(kHonest, 1, 0.1), 40).ok());
  CHECK_FALSE(neighbourhood_for(100, plan_for(kHonest, 0.05, -0.1), 40).ok());
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(neighbourhood_for(100, plan_for(kHonest, nan, 0.1), 40).ok());
  CHECK_FALSE(neighbourhood_for(100, plan_for(kHonest, 0.05, nan), 40).ok());
  auto complete = plan_for(kHonest, 0.05, 0.6);
  complete.complete_graph = true;
  CHECK_FALSE(neighbourhood_for(1000, complete, 40).ok());
}

TEST_CASE("a malicious server is granted 2^40 graphs to choose from") {
  CHECK(security_of(plan_for(kHonest, 0, 0)) == 40);
  CHECK(security_of(plan_for(kMalicious, 0, 0)) == 80);
}

TEST_CASE("a device accepts what a server finds by the same plan, and every higher threshold") {
  for (const ThreatModel threat_model : {kHonest, kMalicious}) {
    for (const double share : {0.0, 0.02, 0.1, 0.2}) {
      for (std::uint32_t devices = 2; devices < 3000; devices += 1 + devices / 5) {
        const auto plan = plan_for(threat_model, share, share);
        const auto found = neighbourhood_for(devices, plan, security_of(plan));
        REQUIRE(found.ok());
        INFO(devices << " devices, " << share << ": " << found->degree << " / "
                     << found->threshold);
        CHECK(check_neighbourhood(*found, plan).ok());
        Neighbourhood other = *found;
        other.threshold = found->complete() ? devices : found->degree;
        CHECK(check_neighbourhood(other, plan).ok());
        ++other.threshold;
        CHECK_FALSE(check_neighbourhood(other, plan).ok());
        other.threshold = found->threshold - 1;
        CHECK_FALSE(check_neighbourhood(other, plan).ok());
      }
    }
  }
}

TEST_CASE("a device refuses a graph or a threshold that is too weak, and says why") {
  const auto plan = plan_for(kHonest, 0.05, 0.05);
  const auto reason = [&](Neighbourhood announced) {
    const auto checked = check_neighbourhood(announced, plan);
    REQUIRE_FALSE(checked.ok());
    return checked.error().message;
  };
  const std::string start = "the server announced ";
  CHECK(reason({500, 30, 1}) == start +
                                    "30 neighbours of 500 devices and a threshold of 1: a single "
                                    "share would reveal a secret");
  CHECK(reason({500, 30, 0}).find("a single share") != std::string::npos);
  CHECK(reason({500, 499, 1}).find("a single share") != std::string::npos);
  CHECK(reason({500, 30, 15}) ==
        start +
            "30 neighbours of 500 devices and a threshold of 15: the plan asks for at least 16");
  CHECK(reason({500, 499, 250}) ==
        start +
            "499 neighbours of 500 devices and a threshold of 250: the plan asks for at least 251");
  CHECK(reason({500, 8, 8}).find("no threshold is secure") != std::string::npos);
  CHECK(reason({500, 31, 17}).find("even") != std::string::npos);
  CHECK(reason({500, 500, 300}).find("no graph has such a degree") != std::string::npos);
  CHECK(reason({500, 0, 2}).find("no graph has such a degree") != std::string::npos);
  CHECK(reason({500, 30, 31}).find("no secret has so many shares") != std::string::npos);
  CHECK(reason({500, 499, 501}).find("no secret has so many shares") != std::string::npos);
  CHECK(reason({19, 16, 10}).find("fewer than 20 devices") != std::string::npos);
  CHECK(reason({1, 0, 2}).find("at least 2 devices") != std::string::npos);
  auto complete = plan;
  complete.complete_graph = true;
  CHECK_FALSE(check_neighbourhood({500, 30, 16}, complete).ok());
  CHECK(check_neighbourhood({500, 499, 251}, complete).ok());
}

TEST_CASE("the graph is regular, symmetric and without loops") {
  for (const Neighbourhood size :
       {Neighbourhood{20, 2, 2}, Neighbourhood{20, 18, 10}, Neighbourhood{101, 30, 16},
        Neighbourhood{7, 6, 4}, Neighbourhood{8, 7, 5}, Neighbourhood{2, 1, 2}}) {
    const NeighbourGraph graph(size, Digest{});
    std::vector<std::vector<std::uint32_t>> of;
    for (std::uint32_t i = 0; i < size.devices; ++i) of.push_back(graph.neighbours_of(i));
    for (std::uint32_t i = 0; i < size.devices; ++i) {
      CHECK(of[i].size() == size.degree);
      CHECK(std::is_sorted(of[i].begin(), of[i].end()));
      CHECK(std::set(of[i].begin(), of[i].end()).size() == size.degree);
      for (const std::uint32_t j : of[i]) {
        REQUIRE(j < size.devices);
        CHECK(j != i);
        CHECK(std::binary_search(of[j].begin(), of[j].end(), i));
      }
    }
  }
}

TEST_CASE("the graph follows from all 256 bits of its seed, alike on every machine") {
  const Neighbourhood size{50, 6, 4};
  std::set<std::vector<std::uint32_t>> seen;
  for (int bit = 0; bit < 256; ++bit) {
    Digest seed;
    seed.bytes[static_cast<std::size_t>(bit / 8)] = static_cast<std::uint8_t>(1 << (bit % 8));
    std::vector<std::uint32_t> all;
    for (std::uint32_t i = 0; i < 50; ++i) {
      for (const std::uint32_t j : NeighbourGraph(size, seed).neighbours_of(i)) all.push_back(j);
    }
    CHECK(seen.insert(all).second);
  }
  // A known answer: it must never change, or devices of two releases disagree.
  CHECK(NeighbourGraph(size, Digest{}).neighbours_of(0) ==
        std::vector<std::uint32_t>{1, 3, 10, 28, 31, 48});
}

TEST_CASE("every pair is joined as often as any other") {
  // 4000 graphs of 20 devices with 4 neighbours: each of 190 pairs is joined with probability 4 /
  // 19, so 842 times with a standard deviation of 25.8. Chi-square over the pairs, whose sum is
  // fixed.
  const std::uint64_t kSeed = 31;
  INFO("seed " << kSeed);
  std::map<std::pair<std::uint32_t, std::uint32_t>, int> joined;
  for (std::uint32_t draw = 0; draw < 4000; ++draw) {
    Digest seed;
    seed.bytes[0] = static_cast<std::uint8_t>(kSeed);
    seed.bytes[1] = static_cast<std::uint8_t>(draw);
    seed.bytes[2] = static_cast<std::uint8_t>(draw >> 8);
    const NeighbourGraph graph({20, 4, 3}, seed);
    for (std::uint32_t i = 0; i < 20; ++i) {
      for (const std::uint32_t j : graph.neighbours_of(i)) {
        if (i < j) ++joined[{i, j}];
      }
    }
  }
  REQUIRE(joined.size() == 190);
  double chi_square = 0;
  const double p = 4.0 / 19;
  for (const auto& [pair, count] : joined) {
    chi_square += std::pow(count - 4000 * p, 2) / (4000 * p * (1 - p));
  }
  // Mean about 190, standard deviation about sqrt(2 * 190) = 19.5; five of them either way.
  CHECK(chi_square < 290);
  CHECK(chi_square > 95);
}

}  // namespace
}  // namespace covey::privacy
