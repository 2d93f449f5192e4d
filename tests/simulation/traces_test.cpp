#include "simulation/devices/traces.hpp"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <covey/run_config.hpp>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "simulation/devices/device_models.hpp"

namespace covey::simulation {
namespace {

std::string capacity_error(const std::string& text, const std::string& name = "c.json") {
  const auto trace = CapacityTrace::parse(text, name);
  if (trace.ok()) return "(no error)";
  return trace.error().message;
}

std::string availability_error(const std::string& text, const std::string& name = "a.json") {
  const auto trace = AvailabilityTrace::parse(text, name);
  if (trace.ok()) return "(no error)";
  return trace.error().message;
}

AvailabilityTrace availability(const std::string& text, const std::string& name = "a.json") {
  auto trace = AvailabilityTrace::parse(text, name);
  if (!trace.ok()) FAIL(trace.error().message);
  return std::move(trace).value();
}

Time at_s(double s) { return Time(from_seconds(s)); }

bool online(const AvailabilityTrace& trace, std::uint64_t client, double s) {
  return trace.surroundings(ClientId{client}, at_s(s)).online;
}

std::string entry(const std::string& active, const std::string& inactive,
                  const std::string& finish = "100") {
  return R"({"7": {"duration": 3, "active": )" + active + R"(, "inactive": )" + inactive +
         R"(, "finish_time": )" + finish + R"(, "model": "CPH1801"}})";
}

/// A folder that goes away with the test.
struct Folder {
  std::filesystem::path path;
  Folder() {
    path = std::filesystem::temp_directory_path() /
           fmt::format("covey-traces-{}", std::random_device{}());
    std::filesystem::create_directories(path);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path / name) << text;
    return (path / name).string();
  }
};

}  // namespace

TEST_CASE("a capacity trace says how long an example and a byte take") {
  const auto trace =
      CapacityTrace::parse(R"({"1": {"computation": 100, "communication": 8000}})", "c.json");
  REQUIRE(trace.ok());
  // FedScale: 3 * batch * steps * computation / 1000 seconds.
  CHECK(trace->of(ClientId{0}).seconds_per_example() == Approx(0.3));
  CHECK(trace->of(ClientId{0}).bytes_per_s() == 1e6);
}

TEST_CASE("devices take a trace's entries in the order of their numbers, in turn") {
  // As texts "10" would come before "9".
  const std::string json =
      R"({"10": {"computation": 30, "communication": 1}, "9": {"communication": 1, "computation": 20},
          "2": {"computation": 10, "communication": 1}})";
  const std::string csv = "id,computation,communication\n10,30,1\r\n 9 , 20 , 1\n\n2,10,1";
  for (const auto& [text, name] : {std::pair(json, "c.json"), std::pair(csv, "c.csv")}) {
    INFO(name);
    const auto trace = CapacityTrace::parse(text, name);
    if (!trace.ok()) FAIL(trace.error().message);
    REQUIRE(trace->size() == 3);
    const std::vector<double> expected = {10, 20, 30, 10, 20};
    for (std::uint64_t i = 0; i < expected.size(); ++i) {
      CHECK(trace->of(ClientId{i}).computation_ms == expected[i]);
    }
  }
}

TEST_CASE("a device of a trace is there from active to inactive, both included, and again") {
  const std::string json = entry("[10, 40.5]", "[20, 60]");
  const std::string csv = "id,active,inactive,finish_time\n7,10,20,100\n7,40.5,60,100\n";
  for (const auto& [text, name] : {std::pair(json, "a.json"), std::pair(csv, "a.csv")}) {
    INFO(name);
    const AvailabilityTrace trace = availability(text, name);
    for (const double turn : {0.0, 100.0, 700.0}) {
      CHECK_FALSE(online(trace, 0, turn + 9.999999));
      CHECK(online(trace, 0, turn + 10));
      CHECK(online(trace, 0, turn + 20));
      CHECK_FALSE(online(trace, 0, turn + 20.000001));
      CHECK_FALSE(online(trace, 0, turn + 40.4));
      CHECK(online(trace, 0, turn + 40.5));
      CHECK(online(trace, 0, turn + 60));
      CHECK_FALSE(online(trace, 0, turn + 99));
    }
    const Surroundings there = trace.surroundings(ClientId{0}, at_s(115));
    CHECK(there.charging);
    CHECK_FALSE(there.metered);
    CHECK(there.until == at_s(120) + Duration(1));
    CHECK(trace.surroundings(ClientId{0}, at_s(70)).until == at_s(100));
    CHECK(trace.surroundings(ClientId{0}, at_s(100)).until == at_s(110));
  }
}

TEST_CASE("walking a trace from change to change sees what looking at every moment sees") {
  const unsigned seed = 20;
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 60; ++round) {
    // Times of 0 to 3 microseconds between each other: intervals that touch, are empty, fill it
    // all.
    std::string active, inactive;
    auto at = static_cast<std::int64_t>(random() % 3);
    const auto intervals = static_cast<unsigned>(random() % 5);
    for (unsigned i = 0; i < intervals; ++i) {
      active += fmt::format("{}{}e-6", i > 0 ? "," : "", at);
      at += static_cast<std::int64_t>(random() % 4);
      inactive += fmt::format("{}{}e-6", i > 0 ? "," : "", at);
      at += static_cast<std::int64_t>(random() % 4);
    }
    const std::int64_t finish = at + 1 + static_cast<std::int64_t>(random() % 2);
    const AvailabilityTrace trace =
        availability(entry("[" + active + "]", "[" + inactive + "]", fmt::format("{}e-6", finish)));
    INFO(active << " | " << inactive << " | " << finish);
    Surroundings walked = trace.surroundings(ClientId{0}, Time{});
    for (Time now{}; now < Time(Duration(3 * finish)); now += Duration(1)) {
      if (walked.until <= now) walked = trace.surroundings(ClientId{0}, now);
      const Surroundings seen = trace.surroundings(ClientId{0}, now);
      REQUIRE(seen.until > now);
      REQUIRE(walked.online == seen.online);
    }
  }
}

TEST_CASE("a device that its trace never shows is never there") {
  const AvailabilityTrace trace = availability(entry("[]", "[]"));
  CHECK_FALSE(online(trace, 0, 50));
  CHECK(trace.is_empty());  // a fleet of such devices is refused
  CHECK(trace.surroundings(ClientId{0}, Time{}).until == Time::max());
}

TEST_CASE("what is wrong with an availability trace is said with file, device and index") {
  CHECK(availability_error(entry("[-1]", "[5]")) ==
        "a.json: device 7: active[0] = -1 s is negative");
  CHECK(availability_error(entry("[10, 30]", "[20, 25]")) ==
        "a.json: device 7: inactive[1] = 25 s is before active[1] = 30 s");
  CHECK(availability_error(entry("[10, 15]", "[20, 25]")) ==
        "a.json: device 7: active[1] = 15 s is before inactive[0] = 20 s: intervals overlap or are "
        "not in order");
  CHECK(availability_error(entry("[30, 1]", "[40, 2]")) ==
        "a.json: device 7: active[1] = 1 s is before inactive[0] = 40 s: intervals overlap or are "
        "not in order");
  CHECK(availability_error(entry("[10, 30]", "[20]")) ==
        "a.json: device 7: active has 2 times and inactive 1: the second is missing at index 1");
  CHECK(availability_error(entry("[10]", "[20, 30]")) ==
        "a.json: device 7: active has 1 times and inactive 2: the first is missing at index 1");
  CHECK(availability_error(entry("[10]", "[101]")) ==
        "a.json: device 7: inactive[0] = 101 s is behind finish_time = 100 s");
  CHECK(availability_error(entry("[]", "[]", "0")) ==
        "a.json: device 7: finish_time = 0 s must be more than 0 and at most 1000000000");
  CHECK(availability_error(R"({"7": {"active": [], "inactive": []}})") ==
        "a.json: device 7: finish_time is missing (seconds)");
  CHECK(availability_error(R"({"7": {"active": [], "finish_time": 5}})") ==
        "a.json: device 7: inactive is missing (a list of seconds)");
}

TEST_CASE("what is wrong with a table is said with its line") {
  const std::string header = "id,active,inactive,finish_time\n";
  CHECK(
      availability_error(header + "3,0,5,100\n7,1,2,100\n\n7,1.5,3,100\n", "a.csv") ==
      "a.csv:5: device 7: active[1] = 1.5 s is before inactive[0] = 2 s: intervals overlap or are "
      "not in order");
  CHECK(availability_error(header + "7,1,2,100\n7,3,4,90\n", "a.csv") ==
        "a.csv:3: device 7: finish_time 90 is another than the 100 of its first row");
  CHECK(availability_error(header + "7,1,2,100\n8,1,2,100\n7,3,4,100\n", "a.csv") ==
        "a.csv: device 7 is there twice; all that is known of a device belongs together");
  CHECK(availability_error(header + "7,1,2\n", "a.csv") ==
        "a.csv:2: expected 4 values (id,active,inactive,finish_time), found 3");
  CHECK(availability_error(header + "7,1,2,100,5,6\n", "a.csv") ==
        "a.csv:2: expected 4 values (id,active,inactive,finish_time), found 6");
  CHECK(availability_error(header + "7,1,x,100\n", "a.csv") ==
        "a.csv:2: device 7: inactive: \"x\" is not a number");
  CHECK(availability_error(header + "7,1,inf,100\n", "a.csv") ==
        "a.csv:2: device 7: inactive: \"inf\" is not a number");
  CHECK(availability_error(header + "-7,1,2,100\n", "a.csv") ==
        "a.csv:2: \"-7\" is no device's number");
  CHECK(availability_error("7,1,2,100\n", "a.csv") ==
        "a.csv:1: expected the header id,active,inactive,finish_time, found \"7,1,2,100\"");
  CHECK(availability_error(header, "a.csv") == "a.csv: a trace without devices");
  CHECK(availability_error("", "a.csv") == "a.csv: a trace without devices");
}

TEST_CASE("capacities that no device has are refused") {
  const auto with = [](const std::string& computation, const std::string& communication) {
    return capacity_error(R"({"1": {"computation": 5, "communication": 6},
                              "9": {"computation": )" +
                          computation + R"(, "communication": )" + communication + "}}");
  };
  CHECK(with("0", "5") ==
        "c.json: device 9: computation 0 ms per example must be more than 0 and at most "
        "1000000000");
  CHECK(with("-3", "5") ==
        "c.json: device 9: computation -3 ms per example must be more than 0 and at most "
        "1000000000");
  CHECK(with("3", "0") ==
        "c.json: device 9: communication 0 kbit/s must be at least 0.001 and at most 1000000000");
  CHECK(with("1e300", "5") ==
        "c.json: device 9: computation 1e+300 ms per example must be more than 0 and at most "
        "1000000000");
  CHECK(with("null", "5") == "c.json: device 9: computation: expected a number, found nothing");
  CHECK(with("[1]", "5") == "c.json: device 9: computation: expected a number, found a list");
  CHECK(capacity_error(R"({"9": {"computation": 5}})") ==
        "c.json: device 9: communication is missing (kbit/s)");
  CHECK(capacity_error("id,computation,communication\n3,5,6\n9,5,-1\n", "c.csv") ==
        "c.csv:3: device 9: communication -1 kbit/s must be at least 0.001 and at most "
        "1000000000");
}

TEST_CASE("text that is no trace is refused") {
  CHECK_THAT(capacity_error("{\"1\": {\n\"computation\": 5,,"),
             Catch::StartsWith("c.json:2: not JSON: syntax error"));
  CHECK_THAT(capacity_error(""), Catch::StartsWith("c.json:1: not JSON: "));
  CHECK_THAT(capacity_error(R"({"1": {"computation": 1e999, "communication": 3}})"),
             Catch::StartsWith("c.json:1: not JSON: number overflow"));
  CHECK(capacity_error("{}") == "c.json: a trace without devices");
  CHECK(capacity_error("[1, 2]") == "c.json: expected an object of devices, found a list");
  CHECK(capacity_error("5") == "c.json: expected an object of devices, found a number");
  CHECK(capacity_error(R"({"1": 5})") == "c.json: device 1: expected an object, found a number");
  CHECK(capacity_error(R"({"a": {}})") == "c.json: \"a\" is no device's number");
  CHECK(availability_error(R"({"7": {"active": 3}})") ==
        "a.json: device 7: active: expected a list of seconds, found a number");
  CHECK(availability_error(R"({"7": {"active": {"a": 1}}})") ==
        "a.json: device 7: active: expected a list of seconds, found an object");
  CHECK(availability_error(R"({"7": {"active": [1, "2"]}})") ==
        "a.json: device 7: active: [1]: expected a number, found the text \"2\"");
  CHECK(availability_error(R"({"7": {"active": [1, [2]]}})") ==
        "a.json: device 7: active: [1]: expected a number, found a list");
  CHECK(availability_error(R"({"7": {"active": [], "active": []}})") ==
        "a.json: device 7: active: is given twice");
  const std::string twice = R"("7": {"computation": 5, "communication": 6})";
  CHECK(capacity_error("{" + twice + "," + twice + "}") ==
        "c.json: device 7 is there twice; all that is known of a device belongs together");
  CHECK(
      capacity_error("x", "traces.pkl") ==
      "traces.pkl: a trace's name ends in .json or .csv (scripts/convert_fedscale_traces.py makes "
      "JSON of FedScale's pickles)");
}

TEST_CASE("fields that say nothing here are skipped, however deep") {
  CHECK(capacity_error(R"({"7": {"computation": 5, "extra": {"computation": [[{"x": []}, null]]},
                                 "more": [{"active": [1]}], "communication": 6}})") ==
        "(no error)");
  CHECK(capacity_error(R"({"7": {"model": )" + std::string(5000, '[') + std::string(5000, ']') +
                       R"(, "computation": 5, "communication": 6}})") == "(no error)");
}

TEST_CASE("traces take the place of what would be drawn") {
  const Folder folder;
  folder.write("capacity.csv", "id,computation,communication\n1,100,8000\n");
  const std::string there = folder.write(
      "there.json", R"({"1": {"active": [0], "inactive": [60], "finish_time": 3600}})");
  const auto config = parse_run_text(
      "[fleet]\nmix = \"phones\"\ncapacity-trace = \"capacity.csv\"\n"
      "availability-trace = \"" +
          there + "\"\n",
      "run.toml", {});
  REQUIRE(config.ok());
  const auto models = DeviceModels::make(*config, folder.path.string(), 5);
  if (!models.ok()) FAIL(models.error().message);
  const DeviceTraits traits = models->traits(ClientId{3});
  CHECK(traits.seconds_per_example == Approx(0.3));
  CHECK(traits.up_bytes_per_s == 1e6);
  CHECK(traits.down_bytes_per_s == 1e6);
  CHECK(traits.battery_joules > 0);  // the mix's
  CHECK_FALSE(models->always_online());
  CHECK(models->has_bandwidths());
  CHECK(models->surroundings(ClientId{3}, at_s(3600 * 7 + 30)).online);
  CHECK_FALSE(models->surroundings(ClientId{3}, at_s(3600 * 7 + 70)).online);
  CHECK(models->surroundings(ClientId{3}, at_s(3600 * 7 + 70)).until == at_s(3600 * 8));
}

TEST_CASE("a trace that cannot be read is named") {
  const Folder folder;
  const auto error_of = [&](const std::string& trace) {
    RunConfig config;
    config.fleet.capacity_trace = trace;
    const auto models = DeviceModels::make(config, folder.path.string(), 5);
    return models.ok() ? "(no error)" : models.error().message;
  };
  CHECK(error_of("none.json") ==
        "none.json: cannot open this trace (it is not in " + folder.path.string() + " either)");
  CHECK(error_of(folder.path.string()) ==
        folder.path.string() + ": is a directory, a trace file was expected");
  const std::string broken = folder.write("broken.json", "{\"1\": {\"computation\": 0}}");
  CHECK_THAT(error_of("broken.json"), Catch::StartsWith(broken + ": device 1: "));
}

TEST_CASE("the example's traces say the same as JSON and as tables") {
  std::string folder = COVEY_SOURCE_DIR "/examples/12_phones";
  const auto read = [&](const std::string& name) {
    std::string path = name;
    auto text = read_trace_file(folder, path);
    if (!text.ok()) FAIL(text.error().message);
    return std::move(text).value();
  };
  const auto json = CapacityTrace::parse(read("capacity.json"), "capacity.json");
  const auto csv = CapacityTrace::parse(read("capacity.csv"), "capacity.csv");
  REQUIRE((json.ok() && csv.ok()));
  REQUIRE(json->size() == 8);
  REQUIRE(csv->size() == 8);
  const AvailabilityTrace there = availability(read("availability.json"), "availability.json");
  const AvailabilityTrace table = availability(read("availability.csv"), "availability.csv");
  for (std::uint64_t i = 0; i < 8; ++i) {
    CHECK(json->of(ClientId{i}).computation_ms == csv->of(ClientId{i}).computation_ms);
    CHECK(json->of(ClientId{i}).bytes_per_s() == csv->of(ClientId{i}).bytes_per_s());
    for (int minute = 0; minute < 24 * 60; ++minute) {
      REQUIRE(online(there, i, 60.0 * minute) == online(table, i, 60.0 * minute));
    }
  }
}

TEST_CASE("a trace of a hundred thousand devices is read in seconds") {
  std::string text = "{";
  for (int i = 0; i < 100000; ++i) {
    text += fmt::format(R"({}"{}": {{"duration": 10, "inactive": [100, 5000, 70000], )"
                        R"("finish_time": 518400, "active": [{}, 4000, 60000], "model": "X"}})",
                        i > 0 ? ", " : "", 100000 - i, i % 90);
  }
  text += "}";
  const auto start = std::chrono::steady_clock::now();
  const AvailabilityTrace trace = availability(text);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  CHECK(trace.size() == 100000);
  CHECK(online(trace, 99999, 50));   // the last number stands first in the file: active from 0
  CHECK_FALSE(online(trace, 0, 5));  // number 1 stands last: 99999 % 90 = 9
  CHECK(online(trace, 0, 9));
  CHECK(took.count() < 20);  // about half a second; machines under test are busy and instrumented
}

}  // namespace covey::simulation
