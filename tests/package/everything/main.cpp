#include <covey/strategies/registry.hpp>

int main() { return covey::strategies::Registry::with_built_ins().names().empty() ? 1 : 0; }
