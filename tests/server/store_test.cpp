#include <sqlite3.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <covey/parameter_vector.hpp>
#include <covey/server/store.hpp>
#include <fstream>
#include <iterator>
#include <limits>

#include "server_test_support.hpp"

using namespace covey;
using namespace covey::server;
using covey::server::test::in_child;
using covey::server::test::TemporaryDirectory;

namespace {

StoredRun new_run() {
  StoredRun run;
  run.run = RunId{0xfedcba9876543210};  // above 2^63: a column is signed
  run.config_toml = "[run]\nname = \"x\"\n";
  run.model = encode_fp32(std::vector<float>{1.0f, 2.0f});
  return run;
}

RoundMetrics metrics_of(std::uint32_t round) {
  RoundMetrics metrics;
  metrics.round = RoundNumber{round};
  metrics.started = Time(Duration(round * 1000));
  metrics.ended = Time(Duration(round * 1000 + 500));
  metrics.selected = 10;
  metrics.accepted = 7;
  metrics.rejected = 1;
  metrics.dropped = 2;
  metrics.examples = 12345;
  metrics.train_loss = 0.25;
  metrics.train_steps = 99;
  metrics.bytes_up = std::uint64_t{1} << 40;
  metrics.bytes_down = 17;
  return metrics;
}

Store opened(const std::string& path) {
  auto store = Store::open(path);
  if (!store.ok()) FAIL(store.error().message);
  return std::move(store).value();
}

/// Runs SQL on the file, as another program would.
void run_sql(const std::string& path, const std::string& sql) {
  sqlite3* connection = nullptr;
  REQUIRE(sqlite3_open(path.c_str(), &connection) == SQLITE_OK);
  const int outcome = sqlite3_exec(connection, sql.c_str(), nullptr, nullptr, nullptr);
  sqlite3_close(connection);
  REQUIRE(outcome == SQLITE_OK);
}

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<float> floats_of(const SharedBytes& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  REQUIRE(decode_fp32(bytes.span(), values).ok());
  return values;
}

}  // namespace

TEST_CASE("a run comes back as it was committed") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("store.db");
  {
    Store store = opened(path);
    CHECK_FALSE(store.load_run().value().has_value());
    REQUIRE(store.begin_run(new_run()).ok());
    CHECK(store.load_run().value()->round == RoundNumber{0});
    REQUIRE(
        store.commit_round(metrics_of(1), encode_fp32(std::vector<float>{3.0f, 4.0f}), {0.5f}, 3)
            .ok());
  }
  Store store = opened(path);
  const auto loaded = store.load_run();
  REQUIRE(loaded.ok());
  REQUIRE(loaded->has_value());
  const StoredRun& run = **loaded;
  CHECK(run.run == new_run().run);
  CHECK(run.config_toml == new_run().config_toml);
  CHECK(run.round == RoundNumber{1});
  CHECK(floats_of(run.model) == std::vector<float>{3.0f, 4.0f});
  CHECK(run.strategy_state == std::vector<float>{0.5f});
}

TEST_CASE("metrics come back with every figure, and evaluations are added to their round") {
  const TemporaryDirectory directory;
  Store store = opened(directory.file("store.db"));
  const auto model = new_run().model;
  REQUIRE(store.begin_run(new_run()).ok());
  REQUIRE(store.record_abandoned(metrics_of(1)).ok());
  REQUIRE(store.record_abandoned(metrics_of(1)).ok());
  RoundMetrics without_loss = metrics_of(1);
  without_loss.train_loss = std::numeric_limits<double>::quiet_NaN();
  REQUIRE(store.commit_round(without_loss, model, {}, 3).ok());
  REQUIRE(store.commit_round(metrics_of(2), model, {}, 3).ok());
  REQUIRE(store.record_evaluation(RoundNumber{1}, 0.9, 0.1).ok());
  CHECK_FALSE(store.record_evaluation(RoundNumber{3}, 0.9, 0.1).ok());

  const auto rounds = store.load_metrics();
  REQUIRE(rounds.ok());
  REQUIRE(rounds->size() == 4);
  CHECK_FALSE((*rounds)[1].committed);
  CHECK_FALSE((*rounds)[1].accuracy.has_value());
  CHECK((*rounds)[2].committed);
  CHECK(std::isnan((*rounds)[2].train_loss));
  CHECK((*rounds)[2].accuracy == 0.9);
  CHECK((*rounds)[2].loss == 0.1);
  const RoundMetrics& last = (*rounds)[3];
  const RoundMetrics expected = metrics_of(2);
  CHECK(last.round == expected.round);
  CHECK(last.started == expected.started);
  CHECK(last.ended == expected.ended);
  CHECK(last.selected == expected.selected);
  CHECK(last.accepted == expected.accepted);
  CHECK(last.rejected == expected.rejected);
  CHECK(last.dropped == expected.dropped);
  CHECK(last.examples == expected.examples);
  CHECK(last.train_loss == expected.train_loss);
  CHECK(last.train_steps == expected.train_steps);
  CHECK(last.bytes_up == expected.bytes_up);
  CHECK(last.bytes_down == expected.bytes_down);
  CHECK_FALSE(last.accuracy.has_value());
}

TEST_CASE("a store refuses a second run, and rounds that do not come next") {
  const TemporaryDirectory directory;
  Store store = opened(directory.file("store.db"));
  const auto model = new_run().model;
  CHECK_FALSE(store.commit_round(metrics_of(1), model, {}, 3).ok());
  CHECK(store.load_metrics().value().empty());
  REQUIRE(store.begin_run(new_run()).ok());
  CHECK_FALSE(store.begin_run(new_run()).ok());
  REQUIRE(store.commit_round(metrics_of(5), model, {}, 3).ok());
  CHECK_FALSE(store.commit_round(metrics_of(5), model, {}, 3).ok());
  CHECK_FALSE(store.commit_round(metrics_of(4), model, {}, 3).ok());
  CHECK(store.load_metrics().value().size() == 1);
  CHECK(store.commit_round(metrics_of(6), model, {}, 3).ok());
}

TEST_CASE("only the newest snapshots are kept") {
  const std::uint32_t keep = GENERATE(0u, 1u, 2u);
  const TemporaryDirectory directory;
  const std::string path = directory.file("store.db");
  {
    Store store = opened(path);
    REQUIRE(store.begin_run(new_run()).ok());
    for (std::uint32_t round = 1; round <= 5; ++round) {
      REQUIRE(store.commit_round(metrics_of(round), new_run().model, {}, keep).ok());
    }
    CHECK(store.load_run().value()->round == RoundNumber{5});
  }
  sqlite3* connection = nullptr;
  REQUIRE(sqlite3_open(path.c_str(), &connection) == SQLITE_OK);
  std::uint32_t kept = 0;
  const auto count = [](void* counter, int, char**, char**) {
    ++*static_cast<std::uint32_t*>(counter);
    return 0;
  };
  const int outcome =
      sqlite3_exec(connection, "SELECT round FROM snapshots", count, &kept, nullptr);
  sqlite3_close(connection);
  REQUIRE(outcome == SQLITE_OK);
  CHECK(kept == std::max(keep, 1u));
}

TEST_CASE("a damaged model is refused by name") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("store.db");
  {
    Store store = opened(path);
    REQUIRE(store.begin_run(new_run()).ok());
    REQUIRE(store.commit_round(metrics_of(1), new_run().model, {1.0f}, 3).ok());
  }
  const std::string damage =
      GENERATE("UPDATE snapshots SET model = zeroblob(8) WHERE round = 1",
               "UPDATE snapshots SET state = zeroblob(4) WHERE round = 1", "DELETE FROM snapshots");
  INFO(damage);
  run_sql(path, damage);
  Store store = opened(path);
  const auto run = store.load_run();
  REQUIRE_FALSE(run.ok());
  CHECK_THAT(run.error().message, Catch::Contains(path) && Catch::Contains("damaged"));
}

TEST_CASE("files that are no store are refused and stay as they were") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("other");
  std::string expected;
  SECTION("text") {
    std::ofstream(path) << "a letter, not a database";
    expected = "not a Covey store";
  }
  SECTION("many bytes") {
    std::ofstream(path) << std::string(20000, 'z');
    expected = "not a Covey store";
  }
  SECTION("another program's database without an application id") {
    run_sql(path, "CREATE TABLE songs(title TEXT)");
    expected = "another program";
  }
  SECTION("another program's database") {
    run_sql(path, "PRAGMA application_id=1234; CREATE TABLE songs(title TEXT)");
    expected = "another program";
  }
  const std::string before = content_of(path);
  const auto store = Store::open(path);
  REQUIRE_FALSE(store.ok());
  CHECK(store.error().code == ErrorCode::kInvalidArgument);
  CHECK_THAT(store.error().message, Catch::Contains(path) && Catch::Contains(expected));
  CHECK(content_of(path) == before);
}

TEST_CASE("a store of another version is refused with both versions") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("store.db");
  { Store store = opened(path); }
  const auto [version, of] = GENERATE(std::pair("7", "a newer"), std::pair("1", "an older"));
  run_sql(path, std::string("PRAGMA user_version=") + version);
  const auto store = Store::open(path);
  REQUIRE_FALSE(store.ok());
  CHECK_THAT(store.error().message, Catch::Contains(std::string("version ") + version) &&
                                        Catch::Contains("versions 2 to 3") &&
                                        Catch::Contains(std::string(of) + " covey"));
}

TEST_CASE("a path where nothing can be made is refused by name") {
  const auto store = Store::open("/nonexistent-folder/store.db");
  REQUIRE_FALSE(store.ok());
  CHECK_THAT(store.error().message, Catch::Contains("/nonexistent-folder/store.db"));
  CHECK_FALSE(Store::open("").ok());
}

TEST_CASE("a store in use is refused, naming who holds it, and free after its end") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("store.db");
  {
    const Store store = opened(path);
    const auto again = in_child([&]() -> std::string {
      const auto second = Store::open(path);
      return second.ok() ? "opened twice" : second.error().message;
    });
    CHECK_THAT(again, Catch::Contains(path) &&
                          Catch::Contains("in use by process " + std::to_string(::getpid())));
    CHECK_FALSE(Store::open(path).ok());
  }
  CHECK(Store::open(path).ok());
}

TEST_CASE("clients are remembered with when they came first and last") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("store.db");
  {
    Store store = opened(path);
    const ClientId client{std::numeric_limits<std::uint64_t>::max()};
    REQUIRE(store.touch_client(client, 1000, "covey/0.1.0").ok());
    REQUIRE(store.touch_client(client, 2000, "covey/0.2.0").ok());
    REQUIRE(store.touch_client(ClientId{2}, 1500, "covey/0.1.0").ok());
  }
  sqlite3* connection = nullptr;
  REQUIRE(sqlite3_open(path.c_str(), &connection) == SQLITE_OK);
  std::string rows;
  const auto append = [](void* text, int, char** values, char**) {
    *static_cast<std::string*>(text) += std::string(values[0]) + "\n";
    return 0;
  };
  const int outcome = sqlite3_exec(
      connection,
      "SELECT client || ' ' || first_seen || ' ' || last_seen || ' ' || agent_version FROM clients "
      "ORDER BY client",
      append, &rows, nullptr);
  sqlite3_close(connection);
  REQUIRE(outcome == SQLITE_OK);
  CHECK(rows == "-1 1000 2000 covey/0.2.0\n2 1500 1500 covey/0.1.0\n");
}

TEST_CASE("a model that no row can hold is refused before the run begins") {
  const TemporaryDirectory directory;
  Store store = opened(directory.file("store.db"));
  StoredRun run = new_run();
  // Only the size is looked at, so nothing needs to lie there.
  run.model = SharedBytes(nullptr, {run.model.data(), 1'000'000'000});
  const auto begun = store.begin_run(run);
  REQUIRE_FALSE(begun.ok());
  CHECK_THAT(begun.error().message, Catch::Contains("1000000000"));
}

TEST_CASE("how often each device took part is counted with the round that it took part in") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("store.db");
  const StoredRun run = new_run();
  const ClientId highest{UINT64_MAX};  // a column is signed
  using Counts = std::map<ClientId, std::uint32_t>;
  {
    Store store = opened(path);
    REQUIRE(store.begin_run(run).ok());
    CHECK(store.load_participations().value().empty());
    REQUIRE(store.commit_round(metrics_of(1), run.model, {}, 1, {ClientId{3}, highest}).ok());
    REQUIRE(store.record_abandoned(metrics_of(2)).ok());  // counts for nobody
    REQUIRE(store.commit_round(metrics_of(2), run.model, {}, 1, {ClientId{3}, ClientId{7}}).ok());
    REQUIRE(store.commit_round(metrics_of(3), run.model, {}, 1).ok());
  }
  Store store = opened(path);
  const Counts expected{{ClientId{3}, 2}, {ClientId{7}, 1}, {highest, 1}};
  CHECK(store.load_participations().value() == expected);
  // A round that is not committed counts nothing.
  CHECK_FALSE(store.commit_round(metrics_of(3), run.model, {}, 1, {ClientId{7}}).ok());
  CHECK(store.load_participations().value() == expected);
}

TEST_CASE("when each device last took part comes back from the store") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("store.db");
  const StoredRun run = new_run();
  const ClientId highest{UINT64_MAX};
  {
    Store store = opened(path);
    REQUIRE(store.begin_run(run).ok());
    CHECK(store.load_last_rounds().value().empty());
    REQUIRE(store.commit_round(metrics_of(1), run.model, {}, 1, {ClientId{3}, highest}).ok());
    REQUIRE(store.commit_round(metrics_of(2), run.model, {}, 1, {ClientId{3}, ClientId{7}}).ok());
  }
  Store store = opened(path);
  const std::map<ClientId, RoundNumber> expected{
      {ClientId{3}, RoundNumber{2}}, {ClientId{7}, RoundNumber{2}}, {highest, RoundNumber{1}}};
  CHECK(store.load_last_rounds().value() == expected);
}

TEST_CASE("a store of version 2 is brought to version 3 with all that it holds") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("store.db");
  const StoredRun run = new_run();
  {
    Store store = opened(path);
    REQUIRE(store.begin_run(run).ok());
    REQUIRE(store.commit_round(metrics_of(1), run.model, {}, 1).ok());
  }
  // As version 2 made the table.
  run_sql(path,
          "DROP TABLE participations;"
          "CREATE TABLE participations(client INTEGER PRIMARY KEY, rounds INTEGER NOT NULL);"
          "INSERT INTO participations VALUES(3, 4);"
          "UPDATE meta SET value = '2' WHERE key = 'schema_version'; PRAGMA user_version=2");
  for (int opens = 0; opens < 2; ++opens) {
    Store store = opened(path);
    CHECK(store.load_run().value()->round == RoundNumber{1});
    CHECK(store.load_participations().value().at(ClientId{3}) == 4);
    CHECK(store.load_last_rounds().value().empty());
  }
  Store store = opened(path);
  REQUIRE(store.commit_round(metrics_of(2), run.model, {}, 1, {ClientId{3}}).ok());
  CHECK(store.load_participations().value().at(ClientId{3}) == 5);
  CHECK(store.load_last_rounds().value().at(ClientId{3}) == RoundNumber{2});
}

TEST_CASE("what a private and secure round was like comes back from the store") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("store.db");
  const StoredRun run = new_run();
  RoundMetrics metrics = metrics_of(1);
  metrics.secure = true;
  metrics.masked = 9;
  metrics.recovered = 2;
  metrics.clipped_coordinates = 77;
  metrics.clipped_weights = 3;
  metrics.rounding_error = 0.125;
  metrics.epsilon = 1.5;
  metrics.delta = 1e-5;
  metrics.clip_norm = 0.3;
  metrics.noise_multiplier = 0.9;
  metrics.private_figures = true;
  {
    Store store = opened(path);
    REQUIRE(store.begin_run(run).ok());
    REQUIRE(store.commit_round(metrics, run.model, {}, 1).ok());
    REQUIRE(store.commit_round(metrics_of(2), run.model, {}, 1).ok());
  }
  Store store = opened(path);
  const auto rounds = store.load_metrics().value();
  REQUIRE(rounds.size() == 2);
  CHECK(to_json_line(rounds[0]) == to_json_line(metrics));
  CHECK(rounds[0].epsilon == 1.5);
  CHECK(rounds[0].masked == 9);
  CHECK(rounds[0].rounding_error == 0.125);
  CHECK(to_json_line(rounds[1]) == to_json_line(metrics_of(2)));
  CHECK_FALSE(rounds[1].epsilon);
}
