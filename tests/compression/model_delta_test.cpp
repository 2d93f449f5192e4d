#include <catch2/catch.hpp>
#include <covey/compression/model_delta.hpp>
