#pragma once

#include <covey/portable_int128.hpp>

namespace covey {

#ifdef __SIZEOF_INT128__
__extension__ typedef unsigned __int128 Uint128;
__extension__ typedef __int128 Int128;
#else
using Uint128 = PortableUint128;
using Int128 = PortableInt128;
#endif

}  // namespace covey
