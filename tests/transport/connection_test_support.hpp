#pragma once

#include <catch2/catch.hpp>
#include <covey/transport/certificates.hpp>
#include <covey/transport/connection.hpp>
#include <covey/transport/event_loop.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace covey::transport::testing {

/// A directory of this test's own, removed with it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  /// Replaces the file `name` and returns its path.
  std::string write(const std::string& name, const std::string& text) const;

 private:
  std::filesystem::path path_;
};

/// A run's certificates in files: an authority, a server for 127.0.0.1, ::1 and localhost, and what
/// a test issues.
class Kit {
 public:
  explicit Kit(const std::string& authority_name = "covey test authority");

  const KeyAndCertificate& authority() const { return authority_; }
  const TemporaryDirectory& files() const { return files_; }
  /// Files of a new certificate of this authority.
  TlsFiles issue_files(const Subject& subject, const std::string& crl = "");
  TlsFiles server_files(const std::string& crl = "");
  TlsFiles device_files(std::uint64_t client, int valid_days = 825);
  /// Writes a revocation list that names nobody; its path.
  std::string empty_crl();
  std::string crl_path() const { return crl_path_; }
  /// Adds a certificate to the revocation list's file.
  void revoke_file(const std::string& certificate_file);

 private:
  TemporaryDirectory files_;
  KeyAndCertificate authority_;
  std::string crl_pem_;
  std::string crl_path_;
  int issued_ = 0;
};

std::string read_text(const std::string& path);

/// One end of a connection, recording what its handlers are told.
struct Endpoint {
  struct Frame {
    std::vector<std::byte> header;
    SharedBytes payload;
  };
  std::shared_ptr<Connection> connection;
  std::vector<Frame> frames;
  std::optional<Error> closed;
  int opened = 0;
  int closings = 0;
  std::function<void()> when_open;
  std::function<void(const Frame&)> when_frame;

  ConnectionHandlers handlers();
  std::string reason() const { return closed ? closed->message : "(not closed)"; }
};

/// An event loop and a listener on a free port of 127.0.0.1 that keeps every accepted endpoint.
struct Network {
  enum Revocations { kWithoutRevocations, kWithRevocations };
  explicit Network(ConnectionLimits limits = {}, Revocations revocations = kWithoutRevocations);

  /// Runs the loop until `done`; fails the test after ten seconds.
  void run_until(const std::function<bool()>& done);
  void run_for(Duration duration);
  std::unique_ptr<Dialer> dialer(const TlsFiles& files, ConnectionLimits limits = {},
                                 const std::string& server_name = "");
  std::string address() const { return "127.0.0.1:" + std::to_string(listener->port()); }
  /// Connects `client` and waits until both ends are open.
  void open(Dialer& with, Endpoint& client);

  Kit kit;
  EventLoop loop;
  std::vector<std::unique_ptr<Endpoint>> accepted;
  std::function<void(Endpoint&)> when_accepted;
  std::unique_ptr<Listener> listener;
};

std::vector<std::byte> pattern_bytes(std::size_t size, std::uint64_t seed);
proto::Encoded frame_of(std::size_t header_bytes, std::size_t payload_bytes, std::uint64_t seed);
bool contains(const std::string& text, const std::string& part);

}  // namespace covey::transport::testing
