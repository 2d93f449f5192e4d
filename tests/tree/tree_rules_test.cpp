// Each rule against violations planted in a small tree, and against what it must let pass.

#include "tree_rules.hpp"

#include <catch2/catch.hpp>

using namespace covey::tree;
using Catch::Matchers::Contains;

namespace {

std::string only(const Violations& violations) {
  INFO("violations: " << violations.size());
  REQUIRE(violations.size() == 1);
  return violations[0];
}

std::string lines(std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += "int a" + std::to_string(i) + ";\n";
  return text;
}

}  // namespace

TEST_CASE("an include against the arrows is found with its file and line") {
  const Tree tree = {{"strategies/fedavg.cpp", "// why\n#include <covey/server/store.hpp>\n"}};
  CHECK(only(dependency_arrows(tree)) ==
        "strategies/fedavg.cpp:2: strategies must not depend on server (<covey/server/store.hpp>)");
}

TEST_CASE("each forbidden arrow is found") {
  const auto arrow = [](const std::string& from, const std::string& to) {
    return dependency_arrows({{from + "/a.cpp", "#include <covey/" + to + "/b.hpp>\n"}}).size();
  };
  CHECK(arrow("core", "strategies") == 1);
  CHECK(arrow("proto", "transport") == 1);
  CHECK(arrow("models", "strategies") == 1);
  CHECK(arrow("privacy", "strategies") == 1);
  CHECK(arrow("client", "server") == 1);
  CHECK(arrow("client", "proto") == 1);
  CHECK(arrow("server", "transport") == 1);
  CHECK(arrow("transport", "server") == 1);
  CHECK(arrow("simulation", "transport") == 1);
  CHECK(arrow("server", "strategies") == 0);
  CHECK(arrow("simulation", "proto") == 0);
  CHECK(arrow("server", "server") == 0);
  CHECK(arrow("server/daemon", "transport") == 0);
  CHECK(arrow("examples/01_x", "transport") == 0);
  CHECK(arrow("tests/server", "simulation") == 0);
}

TEST_CASE("core is what has no folder in its include, and everyone may use it") {
  CHECK(dependency_arrows({{"proto/codec.cpp", "#include <covey/result.hpp>\n"}}).empty());
}

TEST_CASE("another folder's private header is refused even along an arrow") {
  const SourceFile header{"strategies/built_in.hpp", ""};
  for (const std::string include : {"../strategies/built_in.hpp", "strategies/built_in.hpp"}) {
    const Tree tree = {header, {"server/store.cpp", "#include \"" + include + "\"\n"}};
    CHECK_THAT(only(dependency_arrows(tree)), Contains("a private header of strategies"));
  }
  CHECK(dependency_arrows({header, {"strategies/a.cpp", "#include \"built_in.hpp\"\n"}}).empty());
  CHECK(dependency_arrows({header, {"tests/strategies/a_test.cpp", "#include \"built_in.hpp\"\n"}})
            .empty());
}

TEST_CASE("a new folder of sources must enter the table") {
  CHECK_THAT(only(dependency_arrows({{"shiny/a.cpp", ""}})), Contains("shiny"));
}

TEST_CASE("oddly written includes are includes, and text is not") {
  CHECK(dependency_arrows({{"core/a.cpp", "  #  include  <covey/server/store.hpp>\n"}}).size() ==
        1);
  CHECK(dependency_arrows({{"core/a.cpp", "// #include <covey/server/store.hpp>\n"}}).empty());
}

TEST_CASE("a third-party library outside its fence is found") {
  const auto named = [](const std::string& path, const std::string& header) {
    return third_party_fences({{path, "#include <" + header + ">\n"}}).size();
  };
  CHECK(named("server/a.cpp", "google/protobuf/message_lite.h") == 1);
  CHECK(named("transport/a.cpp", "wire.pb.h") == 1);
  CHECK(named("proto/codec.cpp", "wire.pb.h") == 0);
  CHECK(named("simulation/a.cpp", "boost/asio/io_context.hpp") == 1);
  CHECK(named("transport/a.cpp", "boost/asio/io_context.hpp") == 0);
  CHECK(named("server/daemon/a.cpp", "boost/asio/io_context.hpp") == 0);
  CHECK(named("client/a.cpp", "SQLiteCpp/Database.h") == 1);
  CHECK(named("server/store.cpp", "SQLiteCpp/Database.h") == 0);
  CHECK(named("core/random.cpp", "toml++/toml.h") == 1);
  CHECK(named("core/run_file_keys.cpp", "toml++/toml.h") == 0);
  CHECK(named("server/roster.cpp", "toml++/toml.h") == 1);
  CHECK(named("models/network.cpp", "torch/torch.h") == 1);
  CHECK(named("models/torch/engine.cpp", "torch/torch.h") == 0);
}

TEST_CASE("a public header names no library that would reach its users") {
  const auto named = [](const std::string& folder, const std::string& header) {
    const std::string path = folder + "/include/covey/" + folder + "/a.hpp";
    return third_party_fences({{path, "#include <" + header + ">\n"}}).size();
  };
  CHECK(named("transport", "boost/asio/io_context.hpp") == 1);
  CHECK(named("proto", "google/protobuf/arena.h") == 1);
  CHECK(named("privacy", "openssl/evp.h") == 1);
  CHECK(named("server", "spdlog/spdlog.h") == 1);
  CHECK(named("server", "vector") == 0);
  CHECK(third_party_fences({{"core/digest.cpp", "#include <openssl/evp.h>\n"}}).empty());
}

TEST_CASE("a file may have 450 lines and no more, a test as many as it needs") {
  CHECK(sizes({{"core/a.cpp", lines(450)}}).empty());
  CHECK_THAT(only(sizes({{"core/a.cpp", lines(451)}})), Contains("451 lines"));
  CHECK(sizes({{"tests/core/a_test.cpp", lines(451)}}).empty());
}

TEST_CASE("a function may have 80 lines from brace to brace and no more") {
  const auto function = [](std::size_t count) {
    return "namespace a {\nint Class::method(int b) const {\n" + lines(count - 2) + "}\n}\n";
  };
  CHECK(sizes({{"core/a.cpp", function(80)}}).empty());
  CHECK(only(sizes({{"core/a.cpp", function(81)}})) ==
        "core/a.cpp:2: Class::method has 81 lines, at most 80");
}

TEST_CASE("functions are found by name, and nothing else is taken for one") {
  const auto found = function_lengths(R"cpp(
#define MACRO(x) {
    namespace covey {
    struct Point {
      int x = 0;
      int norm() const { return x; }  // }
    };
    enum class Colour { kRed };
    constexpr int kTable[] = {1, 2};
    template <typename T, typename = void>
    class Box : public Base<decltype(f())> {
     public:
      explicit Box(T value) : value_{std::move(value)}, text_("}") {
        if (value) {
          return;
        }
      }
    };
    template <class T>
    void spread(T t) {
      const char c = '{';
      const auto s = R"(}})";
      each(t, [](int million) { return million == 1'000'000; });
      /* } */
    }
    const bool registered = [](int a) { return a > 0; }(1);
    }  // namespace covey
  )cpp");
  std::vector<std::string> names;
  for (const auto& function : found) names.push_back(function.name);
  CHECK(names == std::vector<std::string>{"norm", "Box", "spread", "(a lambda)"});
  REQUIRE(found.size() == 4);
  CHECK(found[2].line == 20);
  CHECK(found[2].lines == 6);
}

TEST_CASE("a test that no CMakeLists.txt builds is found") {
  const SourceFile test{"tests/server/store_test.cpp", ""};
  const SourceFile root{"tests/CMakeLists.txt", "foreach(folder core server)\n"};
  const SourceFile own{"tests/server/CMakeLists.txt", "covey_test(server DEPS covey::server)\n"};
  CHECK(tests_are_built({test, root, own}).empty());
  CHECK_THAT(only(tests_are_built({test, root})), Contains("no CMakeLists.txt"));
  CHECK_THAT(only(tests_are_built({test, own, {"tests/CMakeLists.txt", "# server\n"}})),
             Contains("tests/CMakeLists.txt does not add server"));
  CHECK_THAT(
      only(tests_are_built({test, root, {"tests/server/CMakeLists.txt", "project(server)\n"}})),
      Contains("does not build it"));
}

TEST_CASE("a test in a sub-folder needs its own CMakeLists.txt, and one beside the code is found") {
  const SourceFile root{"tests/CMakeLists.txt", "add_subdirectory(server)\n"};
  const SourceFile server{"tests/server/CMakeLists.txt", "covey_test(server)\n"};
  const SourceFile test{"tests/server/daemon/driver_test.cpp", ""};
  CHECK_THAT(only(tests_are_built({test, root, server})), Contains("tests/server/daemon"));
  CHECK_THAT(only(tests_are_built({{"server/store_test.cpp", ""}})),
             Contains("tests lie in tests/"));
}
