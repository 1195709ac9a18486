import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import org.tensorflow.SavedModelBundle;
import org.tensorflow.Tensor;
import org.tensorflow.ndarray.NdArrays;
import org.tensorflow.ndarray.Shape;
import org.tensorflow.types.TString;

/** Captions images by TensorFlow Java: MODEL INPUT OUTPUT IMAGE..., one caption a line. */
public class ServeCheck {
  public static void main(String[] arguments) throws Exception {
    int images = arguments.length - 3;
    byte[][] encoded = new byte[images][];
    for (int i = 0; i < images; i++) {
      encoded[i] = Files.readAllBytes(Paths.get(arguments[3 + i]));
    }
    try (SavedModelBundle model = SavedModelBundle.load(arguments[0], "serve");
        TString input = TString.tensorOfBytes(NdArrays.vectorOfObjects(encoded));
        Tensor output = model.session().runner().feed(arguments[1], input).fetch(arguments[2]).run().get(0)) {
      for (int i = 0; i < images; i++) {
        byte[] caption = ((TString) output).asBytes().getObject(i);
        System.out.println("caption: " + new String(caption, StandardCharsets.UTF_8));
      }
    }
  }
}
