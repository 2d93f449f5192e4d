#include "client/daemon/dbus_property.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

// The part of the D-Bus specification (0.41) that one question takes: EXTERNAL authentication,
// Hello, org.freedesktop.DBus.Properties.Get. Little-endian messages, as both ends of a local
// socket are.
namespace covey::client {
namespace {

using Clock = std::chrono::steady_clock;

// Types of messages and codes of header fields.
constexpr std::uint8_t kMethodCall = 1, kMethodReturn = 2, kErrorReply = 3;
constexpr std::uint8_t kPath = 1, kInterface = 2, kMember = 3, kReplySerial = 5, kDestination = 6,
                       kSignature = 8;
constexpr std::uint8_t kNoAutoStart = 0x2;
constexpr std::size_t kFixedHeader = 16;  ///< with the length of the field array
/// Far above what a bus tells a client that only asks for a number.
constexpr std::size_t kMostBytes = 64 * 1024;
constexpr int kMostMessages = 16;  ///< that are not the answer (NameAcquired is one)

class Message {
 public:
  Message(std::uint8_t type, std::uint32_t serial) {
    bytes_ = {'l', static_cast<char>(type), static_cast<char>(kNoAutoStart), 1};
    put_u32(0);  // of the body, known later
    put_u32(serial);
    put_u32(0);  // of the fields
  }
  void field(std::uint8_t code, char type, std::string_view value) {
    pad(8);
    bytes_ += static_cast<char>(code);
    bytes_ += '\1';
    bytes_ += type;
    bytes_ += '\0';
    if (type == 'g') return put_signature(value);
    put_string(value);
  }
  void end_fields() {
    set_u32(12, static_cast<std::uint32_t>(bytes_.size() - kFixedHeader));
    pad(8);
    body_ = bytes_.size();
  }
  void put_string(std::string_view value) {
    pad(4);
    put_u32(static_cast<std::uint32_t>(value.size()));
    bytes_ += value;
    bytes_ += '\0';
  }
  const std::string& end() {
    set_u32(4, static_cast<std::uint32_t>(bytes_.size() - body_));
    return bytes_;
  }

 private:
  void pad(std::size_t boundary) {
    while (bytes_.size() % boundary != 0) bytes_ += '\0';
  }
  void put_signature(std::string_view value) {
    bytes_ += static_cast<char>(value.size());
    bytes_ += value;
    bytes_ += '\0';
  }
  void put_u32(std::uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8)
      bytes_ += static_cast<char>((value >> shift) & 0xff);
  }
  void set_u32(std::size_t at, std::uint32_t value) {
    for (std::size_t i = 0; i < 4; ++i)
      bytes_[at + i] = static_cast<char>((value >> (8 * i)) & 0xff);
  }

  std::string bytes_;
  std::size_t body_ = 0;
};

std::string hello_message() {
  Message message(kMethodCall, 1);
  message.field(kPath, 'o', "/org/freedesktop/DBus");
  message.field(kInterface, 's', "org.freedesktop.DBus");
  message.field(kMember, 's', "Hello");
  message.field(kDestination, 's', "org.freedesktop.DBus");
  message.end_fields();
  return message.end();
}

constexpr std::uint32_t kGetSerial = 2;

std::string get_message(const DbusProperty& property) {
  Message message(kMethodCall, kGetSerial);
  message.field(kPath, 'o', property.path);
  message.field(kInterface, 's', "org.freedesktop.DBus.Properties");
  message.field(kMember, 's', "Get");
  message.field(kDestination, 's', property.destination);
  message.field(kSignature, 'g', "ss");
  message.end_fields();
  message.put_string(property.interface);
  message.put_string(property.name);
  return message.end();
}

std::uint32_t u32_at(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    value |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
  }
  return value;
}

std::size_t padded(std::size_t size, std::size_t boundary) {
  return (size + boundary - 1) / boundary * boundary;
}

/// What a message answers, from its header fields; 0: nothing, or fields that cannot be read.
std::uint32_t reply_serial(std::string_view header) {
  const std::size_t end = kFixedHeader + u32_at(header, 12);
  for (std::size_t at = kFixedHeader; at + 8 <= end; at = padded(at, 8)) {
    const auto code = static_cast<std::uint8_t>(header[at]);
    const char type = header[at + 2];
    at += 4;  // code, and the signature of one type
    if (type == 'u') {
      if (code == kReplySerial) return u32_at(header, at);
      at += 4;
    } else if (type == 's' || type == 'o') {
      const std::size_t size = u32_at(header, at);
      if (size > end - at) return 0;
      at += 4 + size + 1;
    } else if (type == 'g') {
      at += static_cast<unsigned char>(header[at]) + 2u;
    } else {
      return 0;
    }
  }
  return 0;
}

class Socket {
 public:
  Socket(int descriptor, Clock::time_point until) : descriptor_(descriptor), until_(until) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() { ::close(descriptor_); }

  int descriptor() const { return descriptor_; }

  Result<void> send(std::string_view bytes) {
    while (!bytes.empty()) {
      COVEY_TRY(wait(POLLOUT));
      const ssize_t sent = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN && errno != EINTR) return broken("sending");
      if (sent > 0) bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return {};
  }
  /// Until at least `size` bytes are there.
  Result<void> fill(std::size_t size) {
    while (buffer_.size() < size) COVEY_TRY(receive());
    return {};
  }
  Result<std::string> line() {
    for (;;) {
      const std::size_t end = buffer_.find("\r\n");
      if (end != std::string::npos) {
        std::string text = buffer_.substr(0, end);
        buffer_.erase(0, end + 2);
        return text;
      }
      COVEY_TRY(receive());
    }
  }
  std::string_view view() const { return buffer_; }
  void drop(std::size_t size) { buffer_.erase(0, size); }

 private:
  static Error broken(std::string_view doing) {
    return failed(fmt::format("{} on the message bus: {}", doing, std::strerror(errno)));
  }
  Result<void> wait(short events) {
    for (;;) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until_ - Clock::now()).count();
      if (left <= 0) return failed("the message bus does not answer in time");
      pollfd poll{.fd = descriptor_, .events = events, .revents = 0};
      const int ready = ::poll(&poll, 1, static_cast<int>(left));
      if (ready > 0) return {};
      if (ready < 0 && errno != EINTR) return broken("waiting");
    }
  }
  Result<void> receive() {
    if (buffer_.size() >= kMostBytes) return failed("the message bus says too much");
    COVEY_TRY(wait(POLLIN));
    std::array<char, 4096> part;
    const ssize_t got = ::recv(descriptor_, part.data(), part.size(), 0);
    if (got == 0) return failed("the message bus closed the connection");
    if (got < 0 && errno != EAGAIN && errno != EINTR) return broken("receiving");
    if (got > 0) buffer_.append(part.data(), static_cast<std::size_t>(got));
    return {};
  }

  int descriptor_;
  Clock::time_point until_;
  std::string buffer_;
};

Result<void> connect(const Socket& socket, const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return failed("the bus's path is too long: " + path);
  std::memcpy(address.sun_path, path.data(), path.size());
  // Of a local socket that is at once, or EAGAIN where the listener's queue is full.
  if (::connect(socket.descriptor(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
      0) {
    return failed(fmt::format("no message bus at {}: {}", path, std::strerror(errno)));
  }
  return {};
}

/// The user id in decimal, each digit as its character code in hex (the specification's EXTERNAL).
std::string authentication() {
  std::string line(1, '\0');
  line += "AUTH EXTERNAL ";
  for (const char digit : std::to_string(::geteuid())) {
    line += fmt::format("{:02x}", static_cast<unsigned>(digit));
  }
  return line + "\r\n";
}

/// The next message, left in the socket's buffer; its size.
Result<std::size_t> next_message(Socket& socket) {
  COVEY_TRY(socket.fill(kFixedHeader));
  const std::string_view header = socket.view();
  if (header[0] != 'l') return failed("the message bus answers in a byte order that is not ours");
  const std::size_t fields = u32_at(header, 12), body = u32_at(header, 4);
  if (fields > kMostBytes || body > kMostBytes) return failed("the message bus says too much");
  const std::size_t size = padded(kFixedHeader + fields, 8) + body;
  if (size > kMostBytes) return failed("the message bus says too much");
  COVEY_TRY(socket.fill(size));
  return size;
}

/// A variant that holds a u: its signature, padding, the value.
Result<std::uint32_t> value_of_body(std::string_view body) {
  const bool right = body.size() >= 8 && body[0] == 1 && body[1] == 'u' && body[2] == 0;
  if (!right) return failed("the property is not a number of 32 bits");
  return u32_at(body, 4);
}

}  // namespace

Result<std::uint32_t> read_dbus_uint32(const std::string& socket_path, const DbusProperty& property,
                                       std::chrono::milliseconds patience) {
  const int descriptor = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) return failed(fmt::format("making a socket: {}", std::strerror(errno)));
  Socket socket(descriptor, Clock::now() + patience);
  COVEY_TRY(connect(socket, socket_path));
  COVEY_TRY(socket.send(authentication()));
  COVEY_ASSIGN(const std::string answer, socket.line());
  if (!answer.starts_with("OK ")) return failed("the message bus lets us not in: " + answer);
  COVEY_TRY(socket.send("BEGIN\r\n" + hello_message() + get_message(property)));
  for (int i = 0; i < kMostMessages; ++i) {
    COVEY_ASSIGN(const std::size_t size, next_message(socket));
    const std::string_view message = socket.view().substr(0, size);
    const auto type = static_cast<std::uint8_t>(message[1]);
    const bool answers =
        (type == kMethodReturn || type == kErrorReply) && reply_serial(message) == kGetSerial;
    if (answers && type == kErrorReply) {
      return failed(fmt::format("{} does not tell its {}", property.destination, property.name));
    }
    if (answers) return value_of_body(message.substr(size - u32_at(message, 4)));
    socket.drop(size);
  }
  return failed("the message bus answers other questions than ours");
}

}  // namespace covey::client
