#include <catch2/catch.hpp>
#include <covey/run_config.hpp>
#include <string>
#include <utility>
#include <vector>

namespace covey {
namespace {

RunConfig parsed(const std::string& text, const std::vector<std::string>& overrides = {}) {
  auto config = parse_run_text(text, "run.toml", overrides);
  if (!config.ok()) FAIL(config.error().message);
  return std::move(config).value();
}

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const auto config = parse_run_text(text, "run.toml", overrides);
  if (config.ok()) return "(no error)";
  CHECK(config.error().code == ErrorCode::kInvalidArgument);
  return config.error().message;
}

// Every key of a class away from its default.
constexpr const char* kClasses = R"([client]
local-epochs = 5
[client.class.slow]
local-epochs = 2
batch-size = 16
precision = "bf16"
width = 0.5
[client.class.narrow_2]
width = 0.25
[fleet]
start-hour = 20.5
[[fleet.class]]
name = "fast"
share = 2.5
latency-ms = [5, 10]
up-mbit-s = 100
down-mbit-s = [50, 400]
gflops = [8, 16]
memory-mib = [1024, 2048]
availability = "nightly"
battery-wh = 18.5
compute-watts = 4
radio-joules-per-mb = 1.5
[[fleet.class]]
name = "slow"
)";

DeviceClassConfig fast_class() {
  DeviceClassConfig fast;
  fast.name = "fast";
  fast.share = 2.5;
  fast.latency_ms_min = 5, fast.latency_ms_max = 10;
  fast.up_mbit_s_min = fast.up_mbit_s_max = 100;
  fast.down_mbit_s_min = 50, fast.down_mbit_s_max = 400;
  fast.gflops_min = 8, fast.gflops_max = 16;
  fast.memory_mib_min = 1024, fast.memory_mib_max = 2048;
  fast.availability = "nightly";
  fast.battery_wh = 18.5;
  fast.compute_watts = 4;
  fast.radio_joules_per_mb = 1.5;
  return fast;
}

}  // namespace

TEST_CASE("every key of a class of devices reaches its member") {
  const RunConfig config = parsed(kClasses);
  REQUIRE(config.fleet.classes.size() == 2);
  CHECK(config.fleet.classes[0] == fast_class());
  DeviceClassConfig slow;
  slow.name = "slow";
  CHECK(config.fleet.classes[1] == slow);
  CHECK(config.fleet.start_hour == 20.5);
}

TEST_CASE("what a class of clients does otherwise is read, and only that") {
  const RunConfig config = parsed(kClasses);
  REQUIRE(config.client.classes.size() == 2);
  const ClientClassConfig narrow{"narrow_2", {}, {}, {}, 0.25};
  const ClientClassConfig slow{"slow", 2, 16, "bf16", 0.5};
  CHECK(config.client.classes[0] == narrow);  // in the order of their names
  CHECK(config.client.classes[1] == slow);
  CHECK(config.client.local_epochs == 5);
}

TEST_CASE("classes written as TOML read back as the same classes") {
  const RunConfig config = parsed(kClasses);
  const std::string text = to_toml(config);
  INFO(text);
  const RunConfig back = parsed(text);
  CHECK(back.fleet.classes == config.fleet.classes);
  CHECK(back.client.classes == config.client.classes);
  CHECK(back.client.local_epochs == 5);
  CHECK(back.fleet.start_hour == 20.5);
  CHECK(to_toml(back) == text);
}

TEST_CASE("a mix and a fleet of one kind are written and read back") {
  const RunConfig mix = parsed("[fleet]\nmix = \"phones\"\ncapacity-trace = \"c.json\"\n");
  CHECK(parsed(to_toml(mix)).fleet.mix == "phones");
  CHECK(parsed(to_toml(mix)).fleet.capacity_trace == "c.json");
  const RunConfig plain =
      parsed("[fleet]\nbattery-wh = 15\navailability = \"nightly\"\nmemory-mib = [128, 256]\n");
  const RunConfig back = parsed(to_toml(plain));
  CHECK(back.fleet.traits == plain.fleet.traits);
  CHECK(back.fleet.traits.memory_mib_max == 256);
}

TEST_CASE("values of a class are checked as those of the fleet, naming the line") {
  const auto with = [](const std::string& line) {
    return error_of("[[fleet.class]]\nname = \"a\"\n" + line + "\n");
  };
  CHECK(with("gflops = \"fast\"") ==
        "run.toml:3: fleet.class.gflops: expected a number or [min, max], found a string \"fast\"");
  CHECK(with("latency-ms = [20, 10]") ==
        "run.toml:3: fleet.class.latency-ms: [20, 10]: the first number must not be larger");
  CHECK(with("share = 0") ==
        "run.toml:3: fleet.class.share: 0 is out of range, it must be more than 0 and at most "
        "1000000000");
  CHECK(with("availability = \"often\"") ==
        "run.toml:3: fleet.class.availability: \"often\" is not one of always, nightly, flaky");
  CHECK(with("latency_ms = 3") ==
        "run.toml:3: fleet.class.latency_ms: unknown key; did you mean latency-ms?");
  CHECK_THAT(with("mix = \"phones\""),
             Catch::StartsWith("run.toml:3: fleet.class.mix: unknown key"));
  CHECK(error_of("[client.class.low]\nwidth = 0\n") ==
        "run.toml:2: client.class.low.width: 0 is out of range, it must be more than 0 and at most "
        "1");
  CHECK(error_of("[client.class.low]\nprecision = \"fp8\"\n") ==
        "run.toml:2: client.class.low.precision: \"fp8\" is not one of fp32, bf16, qat-int8, int8");
  CHECK(error_of("[client.class.low]\nlocal-epoch = 2\n") ==
        "run.toml:2: client.class.low.local-epoch: unknown key; did you mean local-epochs?");
}

TEST_CASE("classes need names, different and of plain letters") {
  CHECK(error_of("[[fleet.class]]\nshare = 2\n") ==
        "run.toml:1: fleet.class.name: a class needs a name");
  CHECK(error_of("[[fleet.class]]\nname = \"a\"\n[[fleet.class]]\nname = \"a\"\n") ==
        "run.toml:4: fleet.class.name: there are two classes called \"a\"");
  CHECK(error_of("[[fleet.class]]\nname = \"a b\"\n") ==
        "run.toml:2: fleet.class.name: \"a b\" is no class's name: at most 32 letters, digits, '-' "
        "and '_'");
  CHECK_THAT(error_of("[client.class.\"x/y\"]\nwidth = 1\n"),
             Catch::StartsWith("run.toml:1: client.class: \"x/y\" is no class's name"));
}

TEST_CASE("classes in the wrong shape of table are refused") {
  CHECK(error_of("[fleet.class]\nname = \"a\"\n") ==
        "run.toml:1: fleet.class: expected [[fleet.class]], found a table");
  CHECK(error_of("[fleet]\nclass = [3]\n") ==
        "run.toml:2: fleet.class: expected [[fleet.class]], found the number 3");
  CHECK(error_of("[[client.class]]\nwidth = 0.5\n") ==
        "run.toml:1: client.class: expected tables [client.class.NAME], found a list");
  CHECK(error_of("[client.class]\nwidth = 0.5\n") ==
        "run.toml:2: client.class.width: expected a table [client.class.width], found the number "
        "0.5");
}

TEST_CASE("a mix, classes and plain traits exclude each other") {
  CHECK(error_of("[fleet]\nmix = \"phones\"\n[[fleet.class]]\nname = \"a\"\n") ==
        "run.toml:2: fleet.mix: \"phones\" and [[fleet.class]] both say who the devices are; keep "
        "one of them");
  CHECK(error_of("[fleet]\nmix = \"phones\"\ngflops = 2\n") ==
        "run.toml:3: fleet.gflops: says nothing without fleet.mix = \"\": a mix brings all of its "
        "devices' traits");
  CHECK(error_of("[fleet]\nlatency-ms = 2\n[[fleet.class]]\nname = \"a\"\n") ==
        "run.toml:2: fleet.latency-ms: says nothing without a fleet of one kind: every "
        "[[fleet.class]] brings its own traits");
  CHECK(error_of("[fleet]\nup-mbit-s = 2\ncapacity-trace = \"c.csv\"\n") ==
        "run.toml:2: fleet.up-mbit-s: says nothing without fleet.capacity-trace = \"\": the trace "
        "brings speeds and bandwidths");
  CHECK(error_of("[fleet]\navailability = \"flaky\"\navailability-trace = \"c.csv\"\n") ==
        "run.toml:2: fleet.availability: says nothing without fleet.availability-trace = \"\": the "
        "trace brings it");
  CHECK(error_of("[fleet]\nmix = \"tablets\"\n") ==
        "run.toml:2: fleet.mix: \"tablets\" is not one of \"\", phones, raspberry-pi, mixed");
}

TEST_CASE("no limit is not the beginning of a range") {
  CHECK(error_of("[fleet]\nup-mbit-s = [0, 10]\n") ==
        "run.toml:2: fleet.up-mbit-s: [0, 10]: 0 means no limit and cannot begin a range");
  CHECK(error_of("[fleet]\nmemory-mib = [0, 10]\n") ==
        "run.toml:2: fleet.memory-mib: [0, 10]: 0 means no limit and cannot begin a range");
  CHECK(error_of("[fleet]\ndown-mbit-s = 1e-9\n") ==
        "run.toml:2: fleet.down-mbit-s: 1e-09 is out of range, it must be 0 (no limit) or at least "
        "1e-06");
  CHECK(error_of("[fleet]\ngflops = 1e-9\n") ==
        "run.toml:2: fleet.gflops: 1e-09 is out of range, it must be at least 1e-06");
  CHECK(error_of("[fleet]\nup-mbit-s = 0\nlatency-ms = [0, 3]\n") == "(no error)");
}

TEST_CASE("overrides reach the classes of a run file") {
  const RunConfig config =
      parsed(kClasses, {"fleet.class.slow.gflops=[0.5, 1]", "fleet.class.fast.share=7",
                        "client.class.slow.local-epochs=3", "client.class.fast.precision=int8",
                        "client.class.fast.width=0.75"});
  CHECK(config.fleet.classes[1].gflops_min == 0.5);
  CHECK(config.fleet.classes[1].gflops_max == 1);
  DeviceClassConfig fast = fast_class();
  fast.share = 7;
  CHECK(config.fleet.classes[0] == fast);
  REQUIRE(config.client.classes.size() == 3);
  const ClientClassConfig added{"fast", {}, {}, "int8", 0.75};
  const ClientClassConfig slow{"slow", 3, 16, "bf16", 0.5};
  CHECK(config.client.classes[0] == added);
  CHECK(config.client.classes[2] == slow);
}

TEST_CASE("overrides of classes that cannot be are refused") {
  CHECK(error_of(kClasses, {"fleet.class.old.gflops=1"}) ==
        "--set fleet.class.old.gflops=1: fleet.class.old.gflops: the run file's classes are fast, "
        "slow");
  CHECK(error_of("", {"fleet.class.old.gflops=1"}) ==
        "--set fleet.class.old.gflops=1: fleet.class.old.gflops: the run file has no "
        "[[fleet.class]]");
  CHECK(
      error_of(kClasses, {"fleet.class.fast.name=quick"}) ==
      "--set fleet.class.fast.name=quick: fleet.class.fast.name: a class is named in the run file "
      "only");
  CHECK(error_of(kClasses, {"fleet.class.fast.gflops=-1"}) ==
        "--set fleet.class.fast.gflops=-1: fleet.class.fast.gflops: -1 is out of range, it must be "
        "more than 0 and at most 1000000000");
  CHECK(error_of("", {"client.class.low.widht=1"}) ==
        "--set client.class.low.widht=1: client.class.low.widht: unknown key; did you mean width?");
  CHECK_THAT(error_of("", {"client.class.low=1"}), Catch::Contains("client.class.low."));
  CHECK_THAT(error_of("", {"fleet.class=1"}), Catch::Contains("expected [[fleet.class]]"));
}

}  // namespace covey
