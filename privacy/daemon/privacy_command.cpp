#include "privacy/daemon/privacy_command.hpp"

#include <fmt/format.h>

#include <cmath>
#include <covey/privacy/accountant.hpp>
#include <covey/privacy/private_release.hpp>
#include <covey/simulation/experiment.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "simulation/daemon/command_line.hpp"
#include "simulation/daemon/model_source.hpp"

namespace covey {
namespace {

using privacy::Accountant;
using privacy::NoiseKind;
using privacy::Releases;
using privacy::Sampling;

struct PrivacyOptions {
  RunFileOptions run_file;
  std::string mechanism = "central-gaussian";
  std::string accountant = "all";
  std::string sampling;  ///< "": poisson with a rate, else none
  double delta = 1e-5;
  std::optional<double> noise_multiplier, epsilon, sampling_rate;
  std::optional<std::uint64_t> rounds;
  std::optional<std::uint32_t> max_participations;
  // The lattice's.
  std::optional<double> quantum, clip, clip_norm;
  std::optional<std::uint32_t> bits, devices;
  std::optional<std::uint64_t> dimension;
};

/// What is asked for: the one of noise, epsilon and rounds that is not given.
enum class Question : std::uint8_t { kEpsilon, kNoise, kRounds };

Result<Question> question_of(const PrivacyOptions& options) {
  const int given = int{options.noise_multiplier.has_value()} + int{options.epsilon.has_value()} +
                    int{options.rounds.has_value()};
  if (given != 2) {
    return invalid_argument(
        "covey privacy works out one of --epsilon, --noise-multiplier and --rounds from the other "
        "two: "
        "give two of them, or a run file");
  }
  if (!options.epsilon) return Question::kEpsilon;
  return options.rounds ? Question::kNoise : Question::kRounds;
}

NoiseKind noise_of(const std::string& mechanism) {
  if (mechanism == "discrete-gaussian") return NoiseKind::kDiscreteGaussian;
  if (mechanism == "skellam") return NoiseKind::kSkellam;
  if (mechanism == "dp-ftrl") return NoiseKind::kTree;
  return NoiseKind::kGaussian;
}

Result<std::optional<privacy::Lattice>> lattice_of(const PrivacyOptions& options, NoiseKind noise) {
  const bool any = options.quantum || options.bits || options.clip || options.dimension ||
                   options.devices || options.clip_norm;
  if (noise != NoiseKind::kDiscreteGaussian && noise != NoiseKind::kSkellam) {
    if (!any) return std::optional<privacy::Lattice>();
    return invalid_argument(fmt::format(
        "--quantum, --bits, --clip, --dimension, --devices and --clip-norm describe the lattice of "
        "discrete-gaussian and skellam noise; --mechanism {} has none",
        options.mechanism));
  }
  if (!options.dimension || !options.devices || !options.clip_norm ||
      options.quantum.has_value() == options.bits.has_value()) {
    return invalid_argument(
        fmt::format("--mechanism {} needs its lattice: --dimension, --devices, --clip-norm, and "
                    "--bits (with --clip) "
                    "or --quantum",
                    options.mechanism));
  }
  if (options.quantum && options.clip) {
    return invalid_argument("--clip goes with --bits; --quantum says the lattice's step itself");
  }
  privacy::Lattice lattice;
  lattice.dimension = *options.dimension;
  lattice.devices = *options.devices;
  lattice.clip_norm = *options.clip_norm;
  lattice.quantum = options.quantum ? *options.quantum
                                    : 2 * options.clip.value_or(1) /
                                          (std::ldexp(1.0, static_cast<int>(*options.bits)) - 2);
  return std::optional(lattice);
}

Result<Releases> releases_of(const PrivacyOptions& options) {
  Releases releases;
  releases.noise = noise_of(options.mechanism);
  releases.noise_multiplier = options.noise_multiplier.value_or(0);
  releases.rounds = options.rounds.value_or(1);
  releases.max_participations = options.max_participations.value_or(1);
  const std::string sampling = !options.sampling.empty() ? options.sampling
                               : options.sampling_rate   ? "poisson"
                                                         : "none";
  if ((sampling != "none") != options.sampling_rate.has_value()) {
    return invalid_argument(
        "--sampling-rate goes with --sampling poisson or fixed, and these with --sampling-rate");
  }
  if (sampling != "none" && options.mechanism == "local-gaussian") {
    return invalid_argument(
        "--mechanism local-gaussian protects against the server, which makes the draw: leave out "
        "--sampling");
  }
  releases.sampling = sampling == "poisson" ? Sampling::kPoisson
                      : sampling == "fixed" ? Sampling::kFixedSize
                                            : Sampling::kNone;
  releases.sampling_rate = options.sampling_rate.value_or(1);
  COVEY_ASSIGN(releases.lattice, lattice_of(options, releases.noise));
  return releases;
}

/// What the answer is said of.
std::string unit_of(const PrivacyOptions& options, const Releases& releases) {
  if (releases.sampling == Sampling::kFixedSize) return "one device's data exchanged for any other";
  if (releases.noise == NoiseKind::kTree) {
    return releases.max_participations == 1
               ? "one device more or less, in one round"
               : fmt::format("one device more or less, in up to {} rounds",
                             releases.max_participations);
  }
  if (options.mechanism == "central-gaussian") return "one device more or less, in all rounds";
  return "one device's contributions put in place of nothing, in all rounds";
}

Result<double> answer(const PrivacyOptions& options, Question question, const Releases& releases,
                      Accountant accountant) {
  switch (question) {
    case Question::kEpsilon:
      return privacy::epsilon_of(releases, accountant, options.delta);
    case Question::kNoise:
      return privacy::noise_multiplier_for(releases, accountant, *options.epsilon, options.delta);
    case Question::kRounds:
      break;
  }
  COVEY_ASSIGN(const std::uint64_t rounds,
               privacy::rounds_within(releases, accountant, *options.epsilon, options.delta));
  return static_cast<double>(rounds);
}

std::string_view name_of(Question question) {
  switch (question) {
    case Question::kEpsilon:
      return "epsilon";
    case Question::kNoise:
      return "noise_multiplier";
    case Question::kRounds:
      break;
  }
  return "rounds";
}

std::vector<Accountant> accountants_of(const std::string& name) {
  std::vector<Accountant> wanted;
  for (const auto accountant : {Accountant::kPld, Accountant::kRdp, Accountant::kZcdp}) {
    if (name == "all" || name == to_string(accountant)) wanted.push_back(accountant);
  }
  return wanted;
}

std::string describe(const PrivacyOptions& options, const Releases& releases) {
  std::string text = options.mechanism;
  if (options.noise_multiplier) text += fmt::format(", z = {}", *options.noise_multiplier);
  if (options.epsilon) text += fmt::format(", epsilon = {}", *options.epsilon);
  text += fmt::format(", delta = {}", options.delta);
  if (options.rounds) text += fmt::format(", {} rounds", *options.rounds);
  if (releases.sampling != Sampling::kNone) {
    text += fmt::format(", {} sampling of {:.6g}", to_string(releases.sampling),
                        releases.sampling_rate);
  }
  return text;
}

/// The error of one accountant is the answer's where only that one was asked, else a remark.
Result<int> calculate(const PrivacyOptions& options) {
  COVEY_ASSIGN(const Question question, question_of(options));
  COVEY_ASSIGN(const Releases releases, releases_of(options));
  const std::string unit = unit_of(options, releases);
  nlohmann::json answers = nlohmann::json::object(), refusals = nlohmann::json::object();
  std::optional<Error> refusal;
  for (const Accountant accountant : accountants_of(options.accountant)) {
    const auto result = answer(options, question, releases, accountant);
    const std::string name(to_string(accountant));
    if (result.ok()) {
      answers[name] = *result;
    } else {
      refusals[name] = result.error().message;
      if (!refusal) refusal = result.error();
    }
  }
  if (answers.empty()) return *refusal;

  fmt::print("  {}\n", describe(options, releases));
  for (const auto& [name, value] : answers.items()) {
    const std::string text = question == Question::kRounds
                                 ? fmt::format("{:.0f}", value.get<double>())
                                 : fmt::format("{:.6g}", value.get<double>());
    fmt::print("  {:<18}{:<12}({})\n", name_of(question), text, name);
  }
  for (const auto& [name, sentence] : refusals.items()) {
    fmt::print("  {}: {}\n", name, sentence.get<std::string>());
  }
  fmt::print("  for {}\n", unit);
  if (options.run_file.json) {
    print_json({{"mechanism", options.mechanism},
                {"delta", options.delta},
                {"sampling", to_string(releases.sampling)},
                {"sampling_rate", releases.sampling_rate},
                {std::string(name_of(question)), answers},
                {"refused", refusals},
                {"unit", unit}});
  }
  return kExitDone;
}

Result<std::optional<privacy::PrivateRelease>> release_of(const RunFileOptions& options,
                                                          const RunConfig& config) {
  COVEY_ASSIGN(const auto registry, simulation::load_registry(config));
  COVEY_ASSIGN(const auto models, model_source(config, options.data_directory));
  COVEY_ASSIGN(const auto experiment,
               simulation::load_server_experiment(config, options.data_directory, models));
  COVEY_ASSIGN(const auto strategy,
               registry.make(config.strategy.name, config.strategy.parameters));
  privacy::PrivateRelease::Run run;
  run.config = config.privacy;
  run.selection = config.selection;
  run.secure_aggregation = experiment.plan.secure_aggregation;
  run.num_rounds = config.num_rounds;
  run.population = experiment.population();
  run.dimension = experiment.layout.size();
  run.sum_strategy = dynamic_cast<const strategies::SumStrategy*>(strategy.get()) != nullptr;
  run.num_scalars = strategy->num_scalars();
  run.strategy = std::string(strategy->name());
  return privacy::PrivateRelease::make(run);
}

Accountant accountant_of(const RunConfig& config) {
  return accountants_of(config.privacy.accountant).front();
}

Result<int> read_run_file(const RunFileOptions& options) {
  COVEY_ASSIGN(const RunConfig config, options.load());
  COVEY_ASSIGN(const auto release, release_of(options, config));
  if (!release) {
    fmt::print("  {} asks for no differential privacy: privacy.mechanism = \"none\"\n",
               options.path);
    if (options.json) print_json({{"mechanism", "none"}});
    return kExitDone;
  }
  const PrivacyConfig& keys = config.privacy;
  Releases releases = release->releases();
  releases.rounds = config.num_rounds;
  if (keys.epsilon > 0) {
    COVEY_ASSIGN(const auto within,
                 privacy::rounds_within(releases, accountant_of(config), keys.epsilon, keys.delta));
    releases.rounds = std::min<std::uint64_t>(releases.rounds, within);
  }
  COVEY_ASSIGN(const double epsilon,
               privacy::epsilon_of(releases, accountant_of(config), keys.delta));
  const PrivacyPlan devices = release->device_plan();
  fmt::print("  {}: epsilon {:.6g} at delta {} ({}), after {} of {} rounds{}\n", keys.mechanism,
             epsilon, keys.delta, keys.accountant, releases.rounds, config.num_rounds,
             releases.rounds < config.num_rounds ? ": the budget ends the run" : "");
  fmt::print("  {}\n", release->guarantee());
  fmt::print("  noise multiplier {:.6g}, clip norm {:.6g}{}", release->noise_multiplier(),
             devices.clip_norm, keys.clip == "adaptive" ? " at first" : "");
  if (devices.noise_stddev > 0) fmt::print(", a device's own noise {:.6g}", devices.noise_stddev);
  fmt::print("; sums are divided by {:.6g}\n", release->denominator());
  if (releases.sampling != Sampling::kNone) {
    fmt::print("  {} sampling of {:.6g} of the devices a round\n", to_string(releases.sampling),
               releases.sampling_rate);
  }
  if (options.json) {
    print_json({{"mechanism", keys.mechanism},
                {"epsilon", epsilon},
                {"delta", keys.delta},
                {"accountant", keys.accountant},
                {"rounds", releases.rounds},
                {"noise_multiplier", release->noise_multiplier()},
                {"clip_norm", devices.clip_norm},
                {"device_noise_stddev", devices.noise_stddev},
                {"denominator", release->denominator()},
                {"sampling", to_string(releases.sampling)},
                {"sampling_rate", releases.sampling_rate},
                {"guarantee", release->guarantee()}});
  }
  return kExitDone;
}

/// Prints the answer; `beside_file`: the first of the given options that a run file leaves no room
/// for.
int show_privacy(const PrivacyOptions& options, const std::string& beside_file) {
  const auto result = [&]() -> Result<int> {
    if (options.run_file.path.empty()) return calculate(options);
    if (beside_file.empty()) return read_run_file(options.run_file);
    return invalid_argument(fmt::format(
        "{} does not go with a run file, whose own keys say it: override them with --set",
        beside_file));
  }();
  return result.ok() ? *result : report_error(result.error(), options.run_file.json);
}

void add_run_file(CLI::App& command, RunFileOptions& options) {
  CLI::Option* file = command.add_option(
      "run-file", options.path, "Says what this run file (TOML) will spend, as its keys stand");
  command.add_option("--set", options.overrides, "Overrides a key of the run file")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->needs(file);
  command.add_option("--seed", options.seed, "The same as --set run.seed=N")->needs(file);
  command.add_option("--data", options.data_directory, "Directory with the run file's data sets")
      ->envname("COVEY_DATA")
      ->type_name("DIR");
  command.add_flag("--json", options.json, "Ends standard output with one JSON object");
}

/// The question, for the case without a run file.
std::vector<CLI::Option*> add_question(CLI::App& command, PrivacyOptions& options) {
  std::vector<CLI::Option*> added;
  const auto add = [&](const char* name, auto& value, const char* help) {
    added.push_back(command.add_option(name, value, help));
    return added.back();
  };
  add("--epsilon", options.epsilon, "Epsilon to keep within");
  add("--noise-multiplier", options.noise_multiplier,
      "Standard deviation of the sum's noise over the clip norm, z");
  add("--rounds", options.rounds, "Rounds, T");
  add("--delta", options.delta, "Delta")->capture_default_str();
  add("--sampling-rate", options.sampling_rate, "Share of the devices in a round, q");
  add("--sampling", options.sampling,
      "How a round's devices are drawn; poisson if only a rate is given")
      ->check(CLI::IsMember({"poisson", "fixed", "none"}));
  add("--mechanism", options.mechanism, "Who makes which noise")
      ->check(CLI::IsMember(
          {"central-gaussian", "local-gaussian", "discrete-gaussian", "skellam", "dp-ftrl"}))
      ->capture_default_str();
  add("--accountant", options.accountant, "How it is counted")
      ->check(CLI::IsMember({"pld", "rdp", "zcdp", "all"}))
      ->capture_default_str();
  add("--max-participations", options.max_participations,
      "Rounds of a dp-ftrl run that one device takes part in, 1 if left out");
  const std::size_t lattice = added.size();
  add("--dimension", options.dimension, "Parameters of the model, d");
  add("--devices", options.devices, "Fewest devices that add noise to a sum");
  add("--clip-norm", options.clip_norm, "l2 norm that contributions are clipped to, S");
  add("--quantum", options.quantum, "Step of the lattice");
  add("--bits", options.bits, "Instead of the step: bits of a coordinate, with --clip")
      ->check(CLI::Range(2, 24));
  add("--clip", options.clip, "Largest coordinate, 1 if left out");
  for (std::size_t i = lattice; i < added.size(); ++i) {
    added[i]->group("Lattice (discrete-gaussian, skellam)");
  }
  return added;
}

}  // namespace

void add_privacy_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<PrivacyOptions>();
  CLI::App* command = app.add_subcommand(
      "privacy",
      "Noise for an epsilon, epsilon for noise, rounds for both; or a run file's epsilon");
  add_run_file(*command, options->run_file);
  const std::vector<CLI::Option*> question = add_question(*command, *options);
  command->footer(
      "Example: covey privacy --noise-multiplier 1.1 --rounds 1000 --sampling-rate 0.01\n"
      "         covey privacy --epsilon 4 --rounds 1000 --sampling-rate 0.01 --accountant pld\n"
      "         covey privacy run.toml --set privacy.epsilon=8");
  command->callback([options, question, &run] {
    std::string given;
    for (const CLI::Option* option : question) {
      if (option->count() > 0 && given.empty()) given = option->get_name();
    }
    run = [options, given] { return show_privacy(*options, given); };
  });
}

}  // namespace covey
