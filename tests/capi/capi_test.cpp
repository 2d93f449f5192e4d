#include <covey_client.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "../daemon/process.hpp"

extern "C" int covey_header_works_in_c(void);

using Catch::Matchers::Contains;
using namespace covey::testing;

namespace {

struct Client {
  Client() { REQUIRE(covey_client_create(&handle) == COVEY_CLIENT_OK); }
  Client(const Client&) = delete;
  ~Client() { CHECK(covey_client_destroy(handle) == COVEY_CLIENT_OK); }

  int set(const char* name, const std::string& value) {
    return covey_client_set_option(handle, name, value.c_str());
  }
  int add(std::vector<float> features, int label) {
    return covey_client_add_example(handle, features.data(), features.size(), label);
  }
  covey_client_status status() {
    covey_client_status status{};
    status.size = sizeof(status);
    REQUIRE(covey_client_get_status(handle, &status) == COVEY_CLIENT_OK);
    return status;
  }

  covey_client* handle = nullptr;
};

std::string last_error() { return covey_client_last_error(); }

}  // namespace

TEST_CASE("the header is C99 and the library is of its version") {
  CHECK(covey_header_works_in_c() == 1);
  CHECK(covey_client_abi() == COVEY_CLIENT_ABI);
  CHECK(std::strlen(covey_client_version()) >= 5);
}

TEST_CASE("null and nonsense are refused with a number and a sentence") {
  CHECK(covey_client_create(nullptr) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(covey_client_destroy(nullptr) == COVEY_CLIENT_OK);
  CHECK(covey_client_step(nullptr, nullptr) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(covey_client_run(nullptr) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(covey_client_stop(nullptr) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK_THAT(last_error(), Contains("null"));
  Client client;
  CHECK(covey_client_set_option(client.handle, nullptr, "x") == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(covey_client_set_option(client.handle, "kit", nullptr) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(covey_client_add_example(client.handle, nullptr, 3, 0) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(covey_client_add_example_bytes(client.handle, nullptr, 3, 0) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(covey_client_set_examples(client.handle, nullptr, nullptr, 3, 1, 2) ==
        COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(covey_client_get_status(client.handle, nullptr) == COVEY_CLIENT_BAD_ARGUMENT);
  covey_client_status status{};
  CHECK(covey_client_get_status(client.handle, &status) == COVEY_CLIENT_BAD_ARGUMENT);
}

TEST_CASE("options are those of covey-client, and wrong ones are named") {
  struct Option {
    const char *name, *value, *sentence;  // nullptr: it is right
  };
  const auto option = GENERATE(values<Option>({
      {"kit", "/somewhere", nullptr},
      {"state", "none", nullptr},
      {"server", "127.0.0.1:1", nullptr},
      {"device-class", "phone", nullptr},
      {"max-memory", "24M", nullptr},
      {"require-charging", "true", nullptr},
      {"hours", "22:00-06:30", nullptr},
      {"once", "false", nullptr},
      {"data", "csv:x.csv", nullptr},
      {"stream", "keep=reservoir,max-examples=7", nullptr},
      {"stream", "", nullptr},
      {"conditions", "system", nullptr},
      {"no-such-thing", "1", "no option \"no-such-thing\""},
      {"help", "true", "no option \"help\""},
      {"config", "x", "no option \"config\""},
      {"require-charging", "yes", "true or false"},
      {"min-battery", "2", "min-battery"},
      {"data", "tape:x", "names no local data"},
      {"stream", "keep=all", "window or reservoir"},
      {"conditions", "good", "host or system"},
      {"kit", "", "empty"},
  }));
  Client client;
  INFO(option.name << "=" << option.value);
  const int code = client.set(option.name, option.value);
  if (option.sentence == nullptr) {
    CHECK(code == COVEY_CLIENT_OK);
  } else {
    CHECK(code == COVEY_CLIENT_BAD_ARGUMENT);
    CHECK_THAT(last_error(), Contains(option.sentence));
  }
}

TEST_CASE("options are set before the first example") {
  Client client;
  REQUIRE(client.set("stream", "max-examples=3") == COVEY_CLIENT_OK);
  CHECK(client.add({1, 2}, 0) == COVEY_CLIENT_OK);
  CHECK(client.set("stream", "max-examples=5") == COVEY_CLIENT_BAD_STATE);
  CHECK_THAT(last_error(), Contains("stream"));
}

TEST_CASE("examples are kept as the stream option says") {
  Client client;
  REQUIRE(client.set("stream", "max-examples=3,classes=2") == COVEY_CLIENT_OK);
  for (int i = 0; i < 5; ++i) CHECK(client.add({1, 2}, 1) == COVEY_CLIENT_OK);
  CHECK(client.status().num_examples == 3);
  CHECK(client.add({1, 2, 3}, 1) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK_THAT(last_error(), Contains("3 features"));
  CHECK(client.add({1, 2}, 2) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(client.add({1, std::nanf("")}, 1) == COVEY_CLIENT_BAD_ARGUMENT);
  const std::uint8_t bytes[] = {1, 2};
  CHECK(covey_client_add_example_bytes(client.handle, bytes, 2, 0) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(covey_client_clear_examples(client.handle) == COVEY_CLIENT_OK);
  CHECK(client.status().num_examples == 0);
}

TEST_CASE("a host may give all examples at once and take them back") {
  Client client;
  REQUIRE(client.add({1, 2}, 0) == COVEY_CLIENT_OK);
  const float features[] = {1, 2, 3, 4, 5, 6};
  const int32_t labels[] = {0, 1, 2};
  CHECK(covey_client_set_examples(client.handle, features, labels, 3, 2, 3) == COVEY_CLIENT_OK);
  CHECK(client.status().num_examples == 3);
  CHECK(covey_client_set_examples(client.handle, features, labels, 3, 2, 2) ==
        COVEY_CLIENT_BAD_ARGUMENT);
  CHECK_THAT(last_error(), Contains("label 2"));
  CHECK(client.status().num_examples == 3);  // as before
  const std::uint8_t bytes[] = {0, 255};
  CHECK(covey_client_set_examples_bytes(client.handle, bytes, labels, 2, 1, 3) == COVEY_CLIENT_OK);
  CHECK(client.status().num_examples == 2);
  CHECK(covey_client_set_examples(client.handle, features, labels,
                                  std::numeric_limits<std::size_t>::max() / 2, 4,
                                  3) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(covey_client_set_examples(client.handle, nullptr, nullptr, 0, 0, 0) == COVEY_CLIENT_OK);
  CHECK(client.status().num_examples == 1);
}

TEST_CASE("examples in files are not added to") {
  TemporaryFolder folder("capi-files");
  write_file(folder / "t.csv", "x,label\n1,0\n2,1\n");
  Client client;
  REQUIRE(client.set("data", "csv:" + folder / "t.csv") == COVEY_CLIENT_OK);
  CHECK(client.add({1}, 0) == COVEY_CLIENT_BAD_STATE);
  CHECK_THAT(last_error(), Contains("files"));
}

TEST_CASE("examples survive the client where there is a state directory") {
  TemporaryFolder folder("capi-state");
  for (int life = 1; life <= 3; ++life) {
    Client client;
    REQUIRE(client.set("state", folder.path()) == COVEY_CLIENT_OK);
    CHECK(client.add({1, 2}, 0) == COVEY_CLIENT_OK);
    CHECK(client.status().num_examples == static_cast<std::uint64_t>(life));
  }
}

TEST_CASE("conditions have their ranges") {
  Client client;
  const auto set = [&](int which, double value) {
    return covey_client_set_condition(client.handle, which, value);
  };
  for (int which = COVEY_CLIENT_CHARGING; which <= COVEY_CLIENT_MINUTE_OF_DAY; ++which) {
    CHECK(set(which, 1) == COVEY_CLIENT_OK);
    CHECK(set(which, std::nan("")) == COVEY_CLIENT_OK);
    CHECK(set(which, -1000) == COVEY_CLIENT_BAD_ARGUMENT);
    CHECK(set(which, INFINITY) == COVEY_CLIENT_BAD_ARGUMENT);
  }
  CHECK(set(0, 1) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(set(99, 1) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK(set(COVEY_CLIENT_BATTERY, 1.01) == COVEY_CLIENT_BAD_ARGUMENT);
}

TEST_CASE("a client that cannot begin says why and begins once that is mended") {
  Client client;
  CHECK(covey_client_step(client.handle, nullptr) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK_THAT(last_error(), Contains("kit"));
  Client nowhere;
  REQUIRE(nowhere.set("kit", "/no/such/kit") == COVEY_CLIENT_OK);
  CHECK(covey_client_run(nowhere.handle) == COVEY_CLIENT_BAD_ARGUMENT);
  CHECK_THAT(last_error(), Contains("/no/such/kit"));
}

TEST_CASE("an error belongs to the thread that it happened on") {
  CHECK(covey_client_create(nullptr) == COVEY_CLIENT_BAD_ARGUMENT);
  std::string elsewhere = "not asked";
  std::thread([&] { elsewhere = covey_client_last_error(); }).join();
  CHECK(elsewhere.empty());
  CHECK_FALSE(last_error().empty());
}

TEST_CASE("nothing but the functions of the header can be seen from outside") {
  TemporaryFolder folder("capi-symbols");
  const std::string list = folder / "symbols";
  const std::string command = std::string("nm -D --defined-only ") + COVEY_C_LIBRARY +
                              " | awk '$2 != \"A\" {print $3}' > " + list;
  REQUIRE(std::system(command.c_str()) == 0);
  std::istringstream symbols(read_file(list));
  std::string symbol;
  int found = 0;
  while (symbols >> symbol) {
    INFO(symbol);
    CHECK(symbol.rfind("covey_client_", 0) == 0);
    CHECK(symbol.find("@@COVEY_CLIENT_0") != std::string::npos);
    ++found;
  }
  CHECK(found == 20);
}
