#include "server/daemon/status_command.hpp"

#include <cstdio>
#include <memory>
#include <optional>

#include <covey/proto/codec.hpp>
#include <covey/transport/connection.hpp>
#include <covey/transport/event_loop.hpp>

#include "server/daemon/kit.hpp"
#include "simulation/daemon/command_line.hpp"

namespace covey {
namespace {

constexpr auto kPatience = std::chrono::seconds(15);

struct StatusOptions {
  std::string kit = "kits/operator";
  std::string server;
  bool json = false;
};

/// Asks one question over one connection. Runs the loop until the answer, or why there is none.
Result<std::string> ask(const StatusOptions& options) {
  COVEY_ASSIGN(const Kit kit, load_operator_kit(options.kit));
  transport::EventLoop loop;
  transport::Dialer::Options dialing;
  dialing.address = options.server.empty() ? kit.address : options.server;
  dialing.server_name = kit.server_name;
  dialing.tls = kit.tls;
  COVEY_ASSIGN(auto dialer, transport::Dialer::make(loop, dialing));

  std::optional<Result<std::string>> answer;
  std::shared_ptr<transport::Connection> connection;
  const auto conclude = [&](Result<std::string> result) {
    if (!answer) answer.emplace(std::move(result));
    loop.stop();
  };
  const auto say = [&](ClientMessage message) { connection->send(proto::encode(message)); };
  transport::Timer patience(loop, [&] {
    conclude(failed("no answer from " + dialing.address + " within 15 s"));
  });
  patience.set(loop.now() + kPatience);
  dialer->connect({.on_open =
                       [&](std::shared_ptr<transport::Connection> opened) {
                         connection = std::move(opened);
                         say(Hello{.agent_version = "covey-status"});
                       },
                   .on_frame =
                       [&](std::span<const std::byte> header, SharedBytes payload) {
                         auto message = proto::decode_server_message(header, std::move(payload));
                         if (!message.ok()) return conclude(message.error());
                         if (std::holds_alternative<Welcome>(*message)) return say(StatusRequest{});
                         if (auto* reply = std::get_if<StatusReply>(&*message)) {
                           return conclude(std::move(reply->json));
                         }
                         if (const auto* refusal = std::get_if<Refusal>(&*message)) {
                           return conclude(failed("the server refused: " + refusal->text));
                         }
                       },
                   .on_closed = [&](const Error& reason) { conclude(reason); }});
  loop.run();
  return std::move(*answer);
}

int show_status(const StatusOptions& options) {
  const auto answer = ask(options);
  if (!answer.ok()) return report_error(answer.error(), options.json);
  const auto json = nlohmann::json::parse(*answer, nullptr, false);
  if (json.is_discarded()) return report_error(malformed("the server's status is not JSON"), options.json);
  if (options.json) {
    print_json(json);
    return kExitDone;
  }
  for (const auto& [key, value] : json.items()) {
    std::printf("%-18s %s\n", key.c_str(),
                value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
  }
  return kExitDone;
}

}  // namespace

void add_status_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<StatusOptions>();
  CLI::App* command = app.add_subcommand("status", "Asks a running server what it is doing");
  command->add_option("--kit", options->kit, "The operator's kit")->type_name("DIR")->capture_default_str();
  command->add_option("--server", options->server, "HOST:PORT instead of the kit's");
  command->add_flag("--json", options->json, "Ends standard output with one JSON object");
  command->footer("Example: covey status --kit kits/operator");
  command->callback([options, &run] { run = [options] { return show_status(*options); }; });
}

}  // namespace covey
