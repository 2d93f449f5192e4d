#include "server/daemon/provision_command.hpp"

#include <fmt/format.h>

#include <memory>

#include "server/daemon/provision_kits.hpp"
#include "simulation/daemon/command_line.hpp"

namespace covey {
namespace {

using nlohmann::json;

/// Upper bound of --valid-days: a hundred years less what lets the authority outlive it.
constexpr int kMaxValidDays = 36000;

std::string text_of(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// One line per fact, as "name: value", and one per item of a list; of a long one the ends.
void print_facts(const json& report) {
  constexpr std::size_t kShown = 8;
  for (const auto& [name, value] : report.items()) {
    if (!value.is_array()) {
      fmt::print("{:<14} {}\n", name, text_of(value));
    } else if (value.size() > kShown) {
      fmt::print("{:<14} {} from {} to {}\n", name, value.size(), text_of(value.front()),
                 text_of(value.back()));
    } else {
      for (const auto& item : value) fmt::print("{:<14} {}\n", name, text_of(item));
    }
  }
}

int finish(const Result<json>& report, bool as_json, const std::string& next_step) {
  if (!report.ok()) return report_error(report.error(), as_json);
  if (as_json) {
    print_json(*report);
    return kExitDone;
  }
  print_facts(*report);
  if (!next_step.empty()) fmt::print("\n{}\n", next_step);
  return kExitDone;
}

/// Options of one sub-command, kept alive by what was given to CLI11.
template <typename Options>
struct WithJson {
  Options options;
  bool json = false;
};

template <typename Options>
void add_json(CLI::App* command, const std::shared_ptr<WithJson<Options>>& held) {
  command->add_flag("--json", held->json, "Ends standard output with one JSON object");
}

void add_valid_days(CLI::App* command, int& days) {
  command->add_option("--valid-days", days, "Days until the certificates expire")
      ->check(CLI::Range(1, kMaxValidDays))
      ->capture_default_str();
}

/// The server listens on 7443 unless it is told otherwise; devices dial what their kits say.
std::string listen_hint(const std::string& address) {
  const std::string port = address.substr(address.rfind(':') + 1);
  return address.empty() || port == "7443" ? "" : " --listen 0.0.0.0:" + port;
}

void add_create(CLI::App* group, std::function<int()>& run) {
  auto held = std::make_shared<WithJson<provision::CreateOptions>>();
  auto& options = held->options;
  CLI::App* command = group->add_subcommand(
      "create",
      "Makes an authority and the kits of a server, an operator and devices; run again, it adds "
      "devices and overwrites nothing");
  command->add_option("--out", options.out, "Folder for all kits")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_option("--devices", options.devices, "How many device kits to make or add")
      ->check(CLI::Range(0u, 1000000u))
      ->capture_default_str();
  command
      ->add_option("--server-name", options.server_names,
                   "Host name or IP address that the server's certificate is for; may be repeated "
                   "(127.0.0.1 and localhost)")
      ->type_name("HOST")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      ->add_option("--address", options.address,
                   "Where devices connect to (127.0.0.1:7443); its host is a server name too")
      ->type_name("HOST:PORT");
  add_valid_days(command, options.valid_days);
  command->add_option("--first-client", options.first_client,
                      "Number of the first new device (after the last one there is, else 0)");
  add_json(command, held);
  command->footer(
      "Example: covey provision create --out kits --devices 8 --address fl.example.org:7443");
  command->callback([held, &run] {
    run = [held] {
      return finish(provision::create(held->options), held->json,
                    fmt::format("Keep {0}/authority to yourself. Next: covey server RUN-FILE --kit "
                                "{0}/server{1}",
                                held->options.out, listen_hint(held->options.address)));
    };
  });
}

void add_request(CLI::App* group, std::function<int()>& run) {
  auto held = std::make_shared<WithJson<provision::RequestOptions>>();
  auto& options = held->options;
  CLI::App* command = group->add_subcommand(
      "request",
      "On a device: makes its keys, which never leave it, and a request to certify them");
  command->add_option("--out", options.out, "Folder of the device's kit")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_option("--name", options.name, "What the device calls itself, 1 to 64 characters")
      ->required();
  add_json(command, held);
  command->footer("Example: covey provision request --out device-kit --name ward-7-scanner");
  command->callback([held, &run] {
    run = [held] {
      return finish(provision::request(held->options), held->json,
                    "Next: give request.pem to whoever keeps the authority, for `covey provision "
                    "approve`");
    };
  });
}

void add_approve(CLI::App* group, std::function<int()>& run) {
  auto held = std::make_shared<WithJson<provision::ApproveOptions>>();
  auto& options = held->options;
  CLI::App* command =
      group->add_subcommand("approve", "Certifies a device's request as a client number");
  command->add_option("--authority", options.authority, "Folder of the authority")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_option("--request", options.request, "The device's request.pem")
      ->type_name("FILE")
      ->required();
  command->add_option("--client", options.client, "The device's number")->required();
  CLI::Option_group* target =
      command->add_option_group("Result", "What to write; at least one of these");
  target->add_option("--out", options.out, "The certificate alone")->type_name("FILE");
  target
      ->add_option("--kit", options.kit,
                   "Folder with all the device needs besides its keys: device.pem, identity.cert, "
                   "ca.pem and client.toml")
      ->type_name("DIR");
  target->require_option(1, 2);
  command
      ->add_option("--identity-out", options.identity_out,
                   "The certificate of the device's identity alone, as identity.cert of a kit")
      ->type_name("FILE");
  add_valid_days(command, options.valid_days);
  command->add_flag("--again", options.again,
                    "The number was given out before, to the same device with another key");
  add_json(command, held);
  command->footer(
      "Example: covey provision approve --authority kits/authority --request request.pem --client "
      "12 --kit device-kit");
  command->callback([held, &run] {
    run = [held] {
      const auto report = provision::approve(held->options);
      const bool without = report.ok() && !(*report)["identity"].get<bool>();
      return finish(report, held->json,
                    without ? "The request holds no identity, so this device declines secure "
                              "aggregation against a malicious server. A new `covey provision "
                              "request` makes one; then approve that with --again."
                            : "");
    };
  });
}

void add_identity(CLI::App* group, std::function<int()>& run) {
  auto held = std::make_shared<WithJson<provision::IdentityOptions>>();
  auto& options = held->options;
  CLI::App* command = group->add_subcommand(
      "identity",
      "Gives a device's kit from before identities one: what other devices know it by where the "
      "server is not trusted");
  command->add_option("--authority", options.authority, "Folder of the authority")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_option("--kit", options.kit, "The device's kit")->type_name("DIR")->required();
  add_json(command, held);
  command->footer("Example: covey provision identity --kit kits/device-0003");
  command->callback([held, &run] {
    run = [held] { return finish(provision::add_identity(held->options), held->json, ""); };
  });
}

void add_revoke(CLI::App* group, std::function<int()>& run) {
  auto held = std::make_shared<WithJson<provision::RevokeOptions>>();
  auto& options = held->options;
  CLI::App* command = group->add_subcommand(
      "revoke", "Shuts certificates out for good; a running server reads the list again by itself");
  command->add_option("--authority", options.authority, "Folder of the authority")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_option("--server", options.server, "The server's kit, whose crl.pem is replaced")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_option("certificate", options.certificates, "Certificates to revoke")
      ->type_name("FILE")
      ->required();
  add_json(command, held);
  command->footer("Example: covey provision revoke kits/device-0003/device.pem");
  command->callback([held, &run] {
    run = [held] { return finish(provision::revoke(held->options), held->json, ""); };
  });
}

void add_show(CLI::App* group, std::function<int()>& run) {
  auto held = std::make_shared<WithJson<std::string>>();
  CLI::App* command = group->add_subcommand("show", "Says whose a certificate is and until when");
  command->add_option("certificate", held->options, "A certificate of a kit")
      ->type_name("FILE")
      ->required();
  add_json(command, held);
  command->footer("Example: covey provision show kits/device-0000/device.pem");
  command->callback([held, &run] {
    run = [held] { return finish(provision::show(held->options), held->json, ""); };
  });
}

}  // namespace

void add_provision_command(CLI::App& app, std::function<int()>& run) {
  CLI::App* group = app.add_subcommand("provision", "Makes, approves and revokes certificates");
  group->require_subcommand(1);
  group->footer("Example: covey provision create --out kits --devices 8");
  add_create(group, run);
  add_request(group, run);
  add_approve(group, run);
  add_identity(group, run);
  add_revoke(group, run);
  add_show(group, run);
}

}  // namespace covey
