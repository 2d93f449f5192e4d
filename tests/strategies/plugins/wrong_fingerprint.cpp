#include <cstddef>
#include <cstdint>

extern "C" {
std::uint32_t covey_strategy_plugin_interface() { return 3; }
const char* covey_strategy_plugin_fingerprint() { return "covey 0.0.1, quux 7, libquux"; }
bool covey_strategy_plugin_register(void*, char*, std::size_t) { return true; }
}
