#include <covey/server/update_pipeline.hpp>

// What devices are sent of the model, each class as its plan says.
namespace covey::server {

EncodedModel UpdatePipeline::encoded_model() const {
  EncodedModel encoded;
  encoded.parameters = encode_fp32(model_.span());
  encoded.sent = format_.model == Encoding::kFp32
                     ? encoded.parameters
                     : encode(format_.model, format_.layout, model_.span());
  if (sender_.state_size() > 0) encoded.sent = encode_fp32(sender_.sent(model_.span()));
  if (format_.variants != nullptr) encoded.variants = encode_variants(encoded.sent);
  // Hashed here, on the worker, once for everyone who shares the bytes.
  static_cast<void>(encoded.parameters.digest());
  static_cast<void>(encoded.sent.digest());
  for (const SharedBytes& bytes : encoded.variants) static_cast<void>(bytes.digest());
  return encoded;
}

/// Of what devices of each variant are sent.
std::vector<Encoding> UpdatePipeline::sent_encodings() const {
  std::vector<Encoding> encodings{format_.model};
  if (format_.variants == nullptr) return encodings;
  for (std::uint32_t number = 1; number < format_.variants->size(); ++number) {
    encodings.push_back((*format_.variants)[number].sent);
  }
  return encodings;
}

/// For each class; those that are sent the same bytes share them.
std::vector<SharedBytes> UpdatePipeline::encode_variants(const SharedBytes& sent) const {
  const PlanVariants& variants = *format_.variants;
  std::vector<SharedBytes> encoded{sent};
  const std::span<const float> model = sender_.sent(model_.span());
  ParameterVector part;
  for (std::uint32_t number = 1; number < variants.size(); ++number) {
    const PlanVariant& variant = variants[number];
    std::uint32_t alike = 0;
    while (alike < number &&
           (variants[alike].sent != variant.sent || variants[alike].indices != variant.indices)) {
      ++alike;
    }
    if (alike < number) {
      encoded.push_back(SharedBytes(encoded[alike]));
    } else if (variant.whole()) {
      encoded.push_back(encode(variant.sent, variant.layout, model));
    } else {
      part = ParameterVector(variant.layout.size());
      variant.gather(model, part.span());
      encoded.push_back(encode(variant.sent, variant.layout, part.span()));
    }
  }
  encoded.erase(encoded.begin());
  return encoded;
}

}  // namespace covey::server
