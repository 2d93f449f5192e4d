#include <cstddef>
#include <cstdint>

extern "C" {
std::uint32_t covey_strategy_plugin_interface() { return 999; }
const char* covey_strategy_plugin_fingerprint() { return "covey 9.9.9"; }
bool covey_strategy_plugin_register(void*, char*, std::size_t) { return true; }
}
