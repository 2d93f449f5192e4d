#include "simulation/invariants.hpp"

#include <catch2/catch.hpp>
#include <functional>
#include <string>

using namespace covey;
using namespace covey::simulation;

namespace {

SharedBytes model_bytes(std::uint8_t value) {
  return SharedBytes(std::vector<std::byte>(16, std::byte{value}));
}

/// A correct server's life, step by step; a test spoils one step.
struct Books {
  explicit Books(const std::function<void(Invariants::Options&)>& change = nullptr)
      : invariants([&] {
          Invariants::Options options;
          options.recovery = from_seconds(1000);
          if (change) change(options);
          return options;
        }()) {}

  static server::JudgeUpdate update(std::uint32_t round, std::uint64_t client, double weight = 2) {
    server::JudgeUpdate judge;
    judge.key.run = judge.report.run = RunId{1};
    judge.key.round = judge.report.round = RoundNumber{round};
    judge.key.client = ClientId{client};
    judge.report.weight = weight;
    return judge;
  }
  void count(std::uint32_t round, std::uint64_t client, double weight = 2) {
    invariants.counted(update(round, client, weight), RoundNumber{round - 1});
  }
  static server::CommitRound commit(std::uint32_t round, std::uint32_t accepted,
                                    std::optional<double> epsilon = std::nullopt) {
    server::CommitRound commit{{}, model_bytes(static_cast<std::uint8_t>(round))};
    commit.metrics.round = RoundNumber{round};
    commit.metrics.accepted = accepted;
    commit.metrics.epsilon = epsilon;
    return commit;
  }
  void one_round(std::uint32_t round, std::optional<double> epsilon = std::nullopt) {
    invariants.summing(RoundNumber{round}, RoundNumber{round - 1});
    count(round, 1);
    count(round, 2);
    invariants.applying(RoundNumber{round}, 2, 4.0);
    invariants.committing(commit(round, 2, epsilon));
    invariants.stored();
    settle(round);
  }
  void settle(std::uint32_t round, std::optional<std::uint8_t> model = std::nullopt) {
    server::CoordinatorOptions options;
    server::RunState state;
    state.round = RoundNumber{round};
    state.model.parameters = model_bytes(model.value_or(static_cast<std::uint8_t>(round)));
    state.model.sent = state.model.parameters;
    invariants.settled(server::RoundCoordinator(options, state));
  }
  static server::StoredRun stored_run(std::uint32_t round) {
    server::StoredRun run;
    run.round = RoundNumber{round};
    run.model = model_bytes(static_cast<std::uint8_t>(round));
    return run;
  }
  static std::vector<RoundMetrics> stored_metrics(std::uint32_t rounds,
                                                  std::optional<double> epsilon = std::nullopt) {
    std::vector<RoundMetrics> metrics;
    for (std::uint32_t r = 1; r <= rounds; ++r) metrics.push_back(commit(r, 2, epsilon).metrics);
    return metrics;
  }
  Assignment assignment(std::uint32_t round, std::uint8_t model, std::uint8_t sum = 0) const {
    Assignment assignment;
    assignment.run = RunId{1};
    assignment.round = RoundNumber{round};
    assignment.model = model_bytes(model).digest();
    assignment.aggregation.bytes[0] = sum;
    return assignment;
  }
  void send(const ServerMessage& message, std::uint64_t client = 1, std::uint64_t connection = 1) {
    invariants.sent(ClientId{client}, ConnectionId{connection}, message);
  }
  /// "": everything holds.
  std::string broken() const {
    return invariants.violation() ? invariants.violation()->message : std::string();
  }
  bool breaks(const std::string& rule) const {
    INFO(broken());
    return broken().find('"' + rule + '"') != std::string::npos;
  }

  Invariants invariants;
};

}  // namespace

TEST_CASE("a correct run of rounds, crashes and restarts breaks no rule") {
  Books books;
  books.settle(0);
  books.send(books.assignment(1, 0));
  books.one_round(1, 0.5);
  books.invariants.published(Books::commit(1, 2, 0.5).metrics);
  books.one_round(2, 0.7);
  books.invariants.crashed();
  server::PrivacyStatus privacy;
  privacy.spent.epsilon = 0.7;
  auto metrics = Books::stored_metrics(2);
  metrics[0].epsilon = 0.5;
  metrics[1].epsilon = 0.7;
  books.invariants.booted(Books::stored_run(2), metrics, {}, privacy);
  books.settle(2);
  books.send(books.assignment(3, 2));
  books.one_round(3, 0.7);
  CHECK(books.broken() == "");
}

TEST_CASE("an update that is counted twice is told") {
  Books books;
  books.settle(0);
  books.invariants.summing(RoundNumber{1}, RoundNumber{0});
  books.count(1, 5);
  CHECK(books.broken() == "");
  books.count(1, 5);
  CHECK(books.breaks("one update counted per round and client"));
  CHECK(books.broken().find("client 5") != std::string::npos);
}

TEST_CASE("a sum may start again, and a device is counted in it anew") {
  Books books;
  books.settle(0);
  for (int attempt = 0; attempt < 2; ++attempt) {
    books.invariants.summing(RoundNumber{1}, RoundNumber{0});
    books.count(1, 5);
  }
  CHECK(books.broken() == "");
}

TEST_CASE("a report of another round that is counted is told") {
  Books books;
  books.settle(0);
  books.one_round(1);
  books.invariants.summing(RoundNumber{2}, RoundNumber{1});
  auto stale = Books::update(2, 1);
  stale.report.round = RoundNumber{1};
  books.invariants.counted(stale, RoundNumber{1});
  CHECK(books.breaks("no stale update is accepted"));
}

TEST_CASE("asynchronously an update is counted up to the largest staleness") {
  const auto asynchronous = [](Invariants::Options& options) {
    options.config.asynchronous.buffer = 2;
    options.config.asynchronous.max_staleness = 2;
  };
  Books books(asynchronous);
  auto update = Books::update(3, 1);
  update.staleness = 2;
  books.invariants.counted(update, RoundNumber{4});  // began with the model of round 2
  CHECK(books.broken() == "");
  auto older = Books::update(2, 1);
  older.staleness = 3;
  books.invariants.counted(older, RoundNumber{4});
  CHECK(books.breaks("no stale update is accepted"));

  Books liar(asynchronous);
  auto younger = Books::update(3, 1);
  younger.staleness = 1;
  liar.invariants.counted(younger, RoundNumber{4});
  CHECK(liar.breaks("no stale update is accepted"));
}

TEST_CASE("asynchronously an update that a committed round has is not counted in a later one") {
  Books books([](Invariants::Options& options) {
    options.config.asynchronous.buffer = 1;
    options.config.asynchronous.max_staleness = 5;
  });
  books.settle(0);
  books.invariants.summing(RoundNumber{1}, RoundNumber{0});
  books.count(1, 5);
  books.invariants.committing(Books::commit(1, 1));
  books.invariants.stored();
  books.settle(1);
  books.invariants.summing(RoundNumber{2}, RoundNumber{1});
  auto again = Books::update(1, 5);
  again.staleness = 1;
  books.invariants.counted(again, RoundNumber{1});
  CHECK(books.breaks("one update counted per round and client"));
}

TEST_CASE("a sum that weighs other than its reports is told") {
  Books books;
  books.settle(0);
  books.invariants.summing(RoundNumber{1}, RoundNumber{0});
  books.count(1, 1, 3);
  books.count(1, 2, 4);
  books.invariants.applying(RoundNumber{1}, 2, 7.0);
  CHECK(books.broken() == "");
  SECTION("in weight") {
    books.invariants.applying(RoundNumber{1}, 2, 10.0);
    CHECK(books.breaks("the weight summed is the weight accepted"));
  }
  SECTION("in number") {
    books.invariants.applying(RoundNumber{1}, 3, 7.0);
    CHECK(books.breaks("the weight summed is the weight accepted"));
  }
  SECTION("in its metrics") {
    books.invariants.committing(Books::commit(1, 3));
    CHECK(books.breaks("the metrics say what was accepted"));
  }
}

TEST_CASE("a round that is skipped or committed twice is told") {
  Books books;
  books.settle(0);
  books.one_round(1);
  const auto round = GENERATE(1U, 3U);
  books.invariants.committing(Books::commit(round, 2));
  CHECK(books.breaks("rounds go up by one"));
}

TEST_CASE("devices, metrics and the coordinator hear of a round only once it is durable") {
  Books books;
  books.settle(0);
  books.invariants.summing(RoundNumber{1}, RoundNumber{0});
  books.count(1, 1);
  books.invariants.committing(Books::commit(1, 1));
  SECTION("a device") { books.send(books.assignment(2, 1)); }
  SECTION("metrics") { books.invariants.published(Books::commit(1, 1).metrics); }
  SECTION("the coordinator") { books.settle(1); }
  CHECK(books.breaks("nobody hears of a round before it is durable"));
}

TEST_CASE("a committed round that a restart loses or changes is told") {
  Books books;
  books.settle(0);
  books.one_round(1);
  books.one_round(2);
  books.invariants.crashed();
  SECTION("its model is older") {
    books.invariants.booted(Books::stored_run(1), Books::stored_metrics(1), {}, std::nullopt);
  }
  SECTION("its model is another") {
    auto run = Books::stored_run(2);
    run.model = model_bytes(99);
    books.invariants.booted(run, Books::stored_metrics(2), {}, std::nullopt);
  }
  SECTION("its metrics are gone") {
    books.invariants.booted(Books::stored_run(2), Books::stored_metrics(1), {}, std::nullopt);
  }
  SECTION("its metrics say other things") {
    auto metrics = Books::stored_metrics(2);
    metrics[0].accepted = 7;
    books.invariants.booted(Books::stored_run(2), metrics, {}, std::nullopt);
  }
  SECTION("the coordinator goes on with another") {
    books.invariants.booted(Books::stored_run(2), Books::stored_metrics(2), {}, std::nullopt);
    CHECK(books.broken() == "");
    books.settle(2, std::uint8_t{98});
  }
  SECTION("devices are given another") { books.send(books.assignment(3, 1)); }
  CHECK(books.breaks("no committed round is lost or changed"));
}

TEST_CASE("an epsilon that falls is told, from round to round and over a restart") {
  Books books;
  books.settle(0);
  books.one_round(1, 0.8);
  SECTION("from round to round") { books.one_round(2, 0.7); }
  SECTION("over a restart") {
    books.invariants.crashed();
    server::PrivacyStatus forgetful;
    books.invariants.booted(Books::stored_run(1), Books::stored_metrics(1, 0.8), {}, forgetful);
  }
  CHECK(books.breaks("epsilon never falls"));
}

TEST_CASE("a device that takes part too often is told, and a store that forgets how often") {
  Books books(
      [](Invariants::Options& options) { options.config.selection.max_participations = 2; });
  books.settle(0);
  books.one_round(1);
  books.one_round(2);
  CHECK(books.broken() == "");
  SECTION("once more") { books.one_round(3); }
  SECTION("forgotten") {
    books.invariants.crashed();
    books.invariants.booted(Books::stored_run(2), Books::stored_metrics(2),
                            {{ClientId{1}, 2}, {ClientId{2}, 1}}, std::nullopt);
  }
  CHECK(books.breaks("participations keep to their limit"));
}

TEST_CASE("a device that is given a second task on its connection is told") {
  Books books;
  books.settle(0);
  books.send(books.assignment(1, 0));
  books.send(books.assignment(1, 0));  // the same again
  books.one_round(1);
  SECTION("without a word between") {
    books.send(books.assignment(2, 1));
    CHECK(books.breaks("a device holds one assignment at a time"));
  }
  SECTION("behind the end of the first") {
    books.send(RoundOver{RunId{1}, RoundNumber{1}, {}});
    books.send(books.assignment(2, 1));
    CHECK(books.broken() == "");
  }
  SECTION("on another connection") {
    books.send(books.assignment(2, 1), 1, 2);
    CHECK(books.broken() == "");
  }
  SECTION("having asked for it") {
    books.invariants.received(ClientId{1}, ConnectionId{1}, CheckIn{});
    books.send(books.assignment(2, 1));
    CHECK(books.broken() == "");
  }
}

TEST_CASE("a secure sum whose name was given before is told") {
  Books books([](Invariants::Options& options) {
    options.config.secure_aggregation.mode = "malicious-server";
  });
  books.settle(0);
  books.invariants.summing(RoundNumber{1}, RoundNumber{0});
  books.send(books.assignment(1, 0, 1), 1, 1);
  books.send(books.assignment(1, 0, 1), 2, 2);
  books.invariants.crashed();
  books.invariants.summing(RoundNumber{1}, RoundNumber{0});
  CHECK(books.broken() == "");
  books.send(books.assignment(1, 0, 1), 1, 3);
  CHECK(books.breaks("a secure sum has a name of its own"));
}

TEST_CASE("an honest device that is refused is told, where its network is honest") {
  const bool honest = GENERATE(true, false);
  Books books([&](Invariants::Options& options) { options.honest_network = honest; });
  books.settle(0);
  books.send(Refusal{RefusalReason::kProtocol, "a chunk that was not asked for"});
  CHECK(books.breaks("an honest device is not refused") == honest);
}

TEST_CASE("a fleet without faults in which no round is committed for too long is told") {
  Books books;
  server::CoordinatorOptions options;
  const server::RoundCoordinator coordinator(options, {});
  const auto at = [](double s) { return Time{} + from_seconds(s); };
  books.invariants.elapsed(at(0), true, coordinator);
  books.invariants.elapsed(at(999), true, coordinator);
  SECTION("nothing happens") {
    books.invariants.elapsed(at(1001), true, coordinator);
    CHECK(books.breaks("rounds go on"));
  }
  SECTION("a fault strikes") {
    books.invariants.elapsed(at(1001), false, coordinator);
    books.invariants.elapsed(at(1500), true, coordinator);
    books.invariants.elapsed(at(2400), true, coordinator);
    CHECK(books.broken() == "");
  }
  SECTION("a round is committed") {
    books.settle(0);
    books.one_round(1);
    books.invariants.elapsed(at(1001), true, coordinator);
    books.invariants.elapsed(at(1900), true, coordinator);
    CHECK(books.broken() == "");
  }
}
