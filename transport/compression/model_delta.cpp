#include <covey/compression/model_delta.hpp>
