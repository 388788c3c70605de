from keras_tokenlearner.cli import main

if __name__ == "__main__":
    main()
