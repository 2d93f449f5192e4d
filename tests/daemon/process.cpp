#include "process.hpp"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

namespace covey::testing {

Process::Process(const std::vector<std::string>& arguments, const std::string& log)
    : Process(COVEY_PROGRAM, arguments, log) {}

Process::Process(const std::string& program, const std::vector<std::string>& arguments,
                 const std::string& log, const std::vector<std::string>& environment)
    : log_(log) {
  std::vector<std::string> more = environment;  // the child's putenv keeps pointers into it
  std::vector<std::string> all = {program};
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& argument : all) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const std::string out = log + ".out", err = log + ".err";
  pid_ = fork();
  if (pid_ == 0) {
    const int out_file = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int err_file = open(err.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(out_file, STDOUT_FILENO);
    dup2(err_file, STDERR_FILENO);
    for (std::string& variable : more) putenv(variable.data());
    execv(argv[0], argv.data());
    _exit(127);
  }
}

Process::~Process() {
  if (pid_ > 0) kill();
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), status_(other.status_), log_(other.log_) {}

Process& Process::operator=(Process&& other) noexcept {
  if (pid_ > 0) kill();
  pid_ = std::exchange(other.pid_, -1);
  status_ = other.status_;
  log_ = other.log_;
  return *this;
}

void Process::signal(int number) {
  if (running()) ::kill(pid_, number);
}

void Process::kill() {
  signal(SIGKILL);
  wait(std::chrono::seconds(10));
}

bool Process::running() {
  if (status_ || pid_ <= 0) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return false;
}

std::optional<int> Process::wait(std::chrono::seconds patience) {
  eventually([this] { return !running(); }, patience);
  return status_;
}

std::string Process::standard_output() const { return read_file(log_ + ".out"); }
std::string Process::standard_error() const { return read_file(log_ + ".err"); }

nlohmann::json Process::json() const {
  std::istringstream lines(standard_output());
  std::string line, last;
  while (std::getline(lines, line)) last = line;
  auto parsed = nlohmann::json::parse(last, nullptr, false);
  return parsed.is_discarded() ? nlohmann::json() : parsed;
}

bool eventually(const std::function<bool()>& condition, std::chrono::seconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

TemporaryFolder::TemporaryFolder(const std::string& name)
    : path_((std::filesystem::temp_directory_path() /
             ("covey-" + name + "-" + std::to_string(getpid())))
                .string()) {
  std::filesystem::remove_all(path_);
  std::filesystem::create_directories(path_);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_file(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t found = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

}  // namespace covey::testing
